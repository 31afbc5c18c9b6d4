package access

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cavra/cavra/aggregator/internal/control"
)

// What the first start makes.
const (
	DefaultTenant  = "default"
	AdminTokenFile = "admin.token"
	adminTokenName = "bootstrap-admin"
)

// Bootstrap makes the default tenant, and an admin token for it unless it has a
// live one, whose secret it writes to dir/admin.token for the owner's eyes only.
// It returns that file's path when it wrote one, else "".
//
// The file is durable before the token is good, so that no crash leaves a token
// whose secret nobody has. Once a token is there the file can be deleted; it is
// not written again while that token lives.
func (g *Gate) Bootstrap(ctx context.Context, dir string) (string, error) {
	if err := g.cfg.Store.EnsureTenant(ctx, DefaultTenant, "Default"); err != nil {
		return "", fmt.Errorf("bootstrap access: %w", err)
	}
	has, err := g.hasAdmin(ctx)
	if err != nil || has {
		return "", err
	}
	secret, hash := Generate(KindAPI)
	path := filepath.Join(dir, AdminTokenFile)
	if err := writePrivate(path, secret+"\n"); err != nil {
		return "", fmt.Errorf("bootstrap access: %w", err)
	}
	err = g.store(ctx, hash, DefaultTenant, adminTokenName, []Scope{Admin}, time.Time{})
	if errors.Is(err, control.ErrExists) {
		// Another aggregator on the same store was faster.
		return "", g.withdraw(path)
	}
	if err != nil {
		return "", fmt.Errorf("bootstrap access: %w", err)
	}
	return path, nil
}

func (g *Gate) hasAdmin(ctx context.Context) (bool, error) {
	tokens, err := g.cfg.Store.APITokens(ctx, DefaultTenant)
	if err != nil {
		return false, fmt.Errorf("bootstrap access: %w", err)
	}
	return slices.ContainsFunc(tokens, func(t control.APIToken) bool {
		return t.Live(g.cfg.Now()) && slices.Contains(t.Scopes, string(Admin))
	}), nil
}

func (g *Gate) withdraw(path string) error {
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("bootstrap access: remove a token that is not good: %w", err)
	}
	return nil
}

// writePrivate replaces a file durably, readable by its owner only.
func writePrivate(path, text string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
