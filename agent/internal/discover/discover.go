// Package discover lists the items of a scope through a connector, as a stream
// and within bounds. What the listing could not look at is an item that says
// so; a listing that could not be finished ends with an error, so that nobody
// takes a part of a scope for all of it.
package discover

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/cavra/cavra/sdk/artifact"
)

// DefaultMaxItems is how many items a scope may have.
const DefaultMaxItems = 5_000_000

// ErrTooMany says that a scope has more items than may be listed.
var ErrTooMany = errors.New("the scope has too many items")

// Lister lists the items under a root, in ascending order of path.
type Lister interface {
	List(ctx context.Context, root string) iter.Seq2[artifact.Item, error]
}

// Scope streams the items under root, at most so many, DefaultMaxItems when
// most is 0. The last pair has an error if the listing is not complete.
func Scope(ctx context.Context, l Lister, root string, most int) iter.Seq2[artifact.Item, error] {
	if most == 0 {
		most = DefaultMaxItems
	}
	return func(yield func(artifact.Item, error) bool) {
		count := 0
		for item, err := range l.List(ctx, root) {
			if err == nil && ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			if err != nil {
				yield(artifact.Item{}, fmt.Errorf("discover %s: %w", root, err))
				return
			}
			if count++; count > most {
				yield(artifact.Item{}, fmt.Errorf("discover %s: %w: more than %d", root, ErrTooMany, most))
				return
			}
			if !yield(item, nil) {
				return
			}
		}
	}
}

// Listing is a scope's items, all at once.
type Listing struct {
	Root  string
	Items []artifact.Item
	// Bytes is the sum of the listed sizes.
	Bytes int64
	// Err says why the listing was not brought to its end, and is nil when it was.
	Err error
	// Hidden are the paths of items that may hide others, in ascending order.
	Hidden []string

	keys map[string]string
}

// All collects a scope, for those who need its totals or its siblings before
// the first item is opened. What was listed before an error is kept.
func All(ctx context.Context, l Lister, root string, most int) *Listing {
	out := &Listing{Root: root, keys: make(map[string]string)}
	for item, err := range Scope(ctx, l, root, most) {
		if err != nil {
			out.Err = err
			return out
		}
		out.Items = append(out.Items, item)
		out.Bytes += item.Size
		if item.Hides() {
			out.Hidden = append(out.Hidden, item.Path)
		}
		if item.Bundle != "" && item.Problem == "" {
			out.keys[item.Path] = item.Key
		}
	}
	return out
}

// Complete reports whether what is not listed is not there.
func (l *Listing) Complete() bool { return l.Err == nil && len(l.Hidden) == 0 }

// MayHold reports whether something may be at path although it is not listed.
func (l *Listing) MayHold(path string) bool {
	if l.Err != nil {
		return true
	}
	for i := strings.LastIndexByte(path, '/'); i > 0; i = strings.LastIndexByte(path[:i], '/') {
		if _, hidden := slices.BinarySearch(l.Hidden, path[:i]); hidden {
			return true
		}
	}
	return false
}

// Locate tells the key of the readable file of a bundle at path.
func (l *Listing) Locate(path string) (key string, ok bool) {
	key, ok = l.keys[path]
	return key, ok
}
