// Package index is a connector for a registry that is made for tests: a list of
// files at index.json, and their bytes by ranges, to whoever bears the token. It is
// built on the sdk alone, as any author's is.
package index

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/connector"
)

// The bounds of what the registry says.
const (
	maxIndex = 16 << 20
	maxKey   = 1024
)

// Connector lists and opens what an index names.
type Connector struct {
	client *http.Client
	// token is the credential "token"; why says that there is none.
	token string
	why   error
}

// New returns a connector that reaches its registry by access.
func New(access connector.Access) *Connector {
	token, err := access.Credential("token")
	return &Connector{client: access.Client(), token: token, why: err}
}

// Close ends the connections that are kept.
func (c *Connector) Close() error {
	c.client.CloseIdleConnections()
	return nil
}

// Describe implements connector.Connector.
func (*Connector) Describe() connector.Description {
	return connector.Description{Name: "index", Version: "1.0.0"}
}

// entry is a file of the index.
type entry struct {
	Path     string `json:"path"`
	Size     int64  `json:"size"`
	Revision string `json:"revision"`
}

// List implements connector.Connector; the root is the registry's URL.
func (c *Connector) List(ctx context.Context, root string) iter.Seq2[artifact.Item, error] {
	return func(yield func(artifact.Item, error) bool) {
		entries, err := c.index(ctx, root)
		if err != nil {
			yield(artifact.Item{}, fmt.Errorf("list: %w", err))
			return
		}
		for _, e := range entries {
			if !yield(artifact.Item{Key: e.Path, Path: e.Path, Size: e.Size, Revision: e.Revision}, nil) {
				return
			}
		}
	}
}

func (c *Connector) index(ctx context.Context, root string) (_ []entry, err error) {
	in, err := c.get(ctx, root, "index.json", "")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.Body.Close()) }()
	b, err := io.ReadAll(io.LimitReader(in.Body, maxIndex+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxIndex {
		return nil, fmt.Errorf("an index of more than %d bytes", maxIndex)
	}
	var entries []entry
	if err := json.Unmarshal(b, &entries); err != nil {
		return nil, err
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.Path, b.Path) })
	return entries, nil
}

// get asks for a part of a file, or all of it.
func (c *Connector) get(ctx context.Context, root, path, part string) (*http.Response, error) {
	if c.why != nil {
		return nil, c.why
	}
	place, err := url.JoinPath(root, path)
	if err != nil {
		return nil, err
	}
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, place, nil)
	if err != nil {
		return nil, err
	}
	ask.Header.Set("Authorization", "Bearer "+c.token)
	want := http.StatusOK
	if part != "" {
		ask.Header.Set("Range", "bytes="+part)
		want = http.StatusPartialContent
	}
	in, err := c.client.Do(ask)
	if err != nil {
		return nil, err
	}
	if in.StatusCode == want {
		return in, nil
	}
	err = fmt.Errorf("the registry answers %s", in.Status)
	switch in.StatusCode {
	case http.StatusNotFound:
		err = fs.ErrNotExist
	case http.StatusUnauthorized, http.StatusForbidden:
		err = &connector.Problem{Reason: predicate.PermissionDenied, Err: err}
	}
	return nil, errors.Join(err, in.Body.Close())
}

// Open implements connector.Connector.
func (c *Connector) Open(ctx context.Context, root, key string) (artifact.Reader, error) {
	if len(key) > maxKey || !fs.ValidPath(key) {
		return nil, fmt.Errorf("open: %w", fs.ErrNotExist)
	}
	entries, err := c.index(ctx, root)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	at, ok := slices.BinarySearchFunc(entries, key, func(e entry, key string) int { return strings.Compare(e.Path, key) })
	if !ok {
		return nil, fmt.Errorf("open: %w", fs.ErrNotExist)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	return &reader{
		size:  entries[at].Size,
		close: func() { cancel(fs.ErrClosed) },
		fetch: func(p []byte, off int64) error {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			in, err := c.get(ctx, root, key, fmt.Sprintf("%d-%d", off, off+int64(len(p))-1))
			if err != nil {
				return err
			}
			_, err = io.ReadFull(in.Body, p)
			return errors.Join(err, in.Body.Close())
		},
	}, nil
}

// reader fetches ranges.
type reader struct {
	size  int64
	fetch func(p []byte, off int64) error
	close func()
}

func (r *reader) Size() int64 { return r.size }

func (r *reader) Close() error {
	r.close()
	return nil
}

func (r *reader) ReadAt(p []byte, off int64) (int, error) {
	switch {
	case off < 0:
		return 0, fmt.Errorf("read: offset %d", off)
	case off >= r.size:
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), r.size-off)]
	if err := r.fetch(want, off); err != nil {
		return 0, fmt.Errorf("read: %w", err)
	}
	if len(want) < len(p) {
		return len(want), io.EOF
	}
	return len(want), nil
}
