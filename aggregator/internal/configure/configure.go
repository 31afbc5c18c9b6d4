// Package configure signs what administrators set on their agents.
//
// It guarantees that a document names one tenant and one agent, that its version
// only grows, that it ends by itself unless it is fetched again, and that the key
// is made once and is readable by its owner only. The tenant is that of whoever
// asks, never one that a request names.
package configure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/diskio"
	"github.com/cavra/cavra/sdk/identity"
	"github.com/cavra/cavra/sdk/remoteconfig"
)

// Life is how long a document is good. Half of it before, an agent that calls
// gets another of the same version.
const Life = 7 * 24 * time.Hour

const maxKey = 8 << 10

// Store keeps what was set.
type Store interface {
	WantedConfig(ctx context.Context, tenant, agent string) (control.FleetConfig, error)
}

// Service signs configurations. It is safe for concurrent use.
type Service struct {
	store Store
	key   *identity.Key
	now   func() time.Time
}

// New makes a service; a nil clock is time.Now.
func New(store Store, key *identity.Key, now func() time.Time) (*Service, error) {
	if store == nil || key == nil {
		return nil, errors.New("configure agents: store and key are required")
	}
	if key.Public().Algorithm != predicate.Ed25519 {
		return nil, errors.New("configure agents: the key is not Ed25519")
	}
	if now == nil {
		now = time.Now
	}
	return &Service{store, key, now}, nil
}

// OpenKey reads the key that signs; one that is missing is made where create says
// so.
func OpenKey(file string, create bool) (*identity.Key, error) {
	b, err := diskio.ReadFile(file, maxKey)
	if create && errors.Is(err, os.ErrNotExist) {
		if b, err = makeKey(file); err != nil {
			return nil, fmt.Errorf("make the key for agents' configurations: %w", err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read the key for agents' configurations: %w", err)
	}
	key, err := identity.ParsePEM(b)
	if err != nil {
		return nil, fmt.Errorf("read the key for agents' configurations %s: %w", file, err)
	}
	return key, nil
}

func makeKey(file string) ([]byte, error) {
	key, err := identity.Generate(predicate.Ed25519)
	if err != nil {
		return nil, err
	}
	b, err := key.MarshalPEM()
	if err != nil {
		return nil, err
	}
	if err := diskio.MakeDir(diskio.OS{}, filepath.Dir(file), 0o700); err != nil {
		return nil, err
	}
	return b, diskio.WriteFile(diskio.OS{}, file, b, 0o600)
}

// Key is the public key that agents believe, in PKIX DER.
func (s *Service) Key() ([]byte, error) { return s.key.Public().DER() }

// For is the document that an agent lacks, which has one of a version that ends at
// a moment; nil where it lacks none.
func (s *Service) For(ctx context.Context, tenant, agent string, version uint64, end time.Time) ([]byte, error) {
	wanted, err := s.store.WantedConfig(ctx, tenant, agent)
	if err != nil {
		return nil, err
	}
	now := s.now()
	if wanted.Version == 0 || wanted.Version == version && end.Sub(now) > Life/2 {
		return nil, nil
	}
	var set remoteconfig.Settings
	if wanted.Settings != "" {
		if set, err = remoteconfig.ParseSettings([]byte(wanted.Settings)); err != nil {
			return nil, fmt.Errorf("configuration %d of tenant %s: %w", wanted.Version, tenant, err)
		}
	}
	return remoteconfig.Sign(remoteconfig.Document{
		Tenant: tenant, Agent: agent, Version: wanted.Version,
		IssuedAt: predicate.At(now), NotAfter: predicate.At(now.Add(Life)), Settings: set,
	}, s.key)
}
