// Package connector is the contract of a connector: it lists the artifacts of
// one registry by reference and opens their bytes. It interprets none of them.
package connector

import (
	"context"
	"iter"

	"github.com/cavra/cavra/sdk/artifact"
)

// Description is what a connector says of itself; both are identifiers.
type Description struct {
	// Name is the registry's kind, such as "fs".
	Name, Version string
}

// Connector lists and opens. Its methods may be called from several goroutines
// at once.
type Connector interface {
	Describe() Description
	// List yields every item under root, in ascending order of Path, in bounded
	// memory where the registry permits. What cannot be looked at is an item
	// with a Problem. An error ends the listing and says that it is incomplete.
	List(ctx context.Context, root string) iter.Seq2[artifact.Item, error]
	// Open opens the item that List gave the key for. A Reader that also
	// implements artifact.Descriptor is handed to the host as a descriptor.
	Open(ctx context.Context, root, key string) (artifact.Reader, error)
}
