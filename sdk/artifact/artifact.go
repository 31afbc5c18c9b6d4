// Package artifact holds the things that are scanned and their identity: an
// artifact is the SHA-256 of bytes, a bundle that of a canonical manifest of
// paths and digests, and a reference a place that points to one at a time.
package artifact

import (
	"io"

	"github.com/cavra/cavra/schemas/predicate"
)

// Digest names bytes by their SHA-256.
type Digest = predicate.Digest

// Reason says why bytes were not looked at.
type Reason = predicate.Reason

// Reader is an opened artifact: its bytes at any offset, and how many there
// are. ReadAt may be called from several goroutines at once. It hides whether
// the bytes are in memory, behind a descriptor, or fetched by ranges.
type Reader interface {
	io.ReaderAt
	io.Closer
	// Size is in bytes, fixed when the artifact was opened.
	Size() int64
}

// Descriptor is what a Reader also implements when its bytes are behind a file
// descriptor of this process, which may be handed to another one.
type Descriptor interface {
	// Fd is valid until the Reader is closed.
	Fd() uintptr
}

// Item is an artifact as a connector lists it: a reference, before anybody has
// read the bytes that it points to.
type Item struct {
	// Key is what the connector opens the item by; unique within a scope.
	Key string
	// Path is the path from the scope's root, with slashes.
	Path string
	// Name and Version are the registry's own, where it has them.
	Name, Version string
	// Bundle is the path of the bundle that the item is a file of: "." for the
	// scope's root, and empty for none.
	Bundle string
	// Size in bytes, as listed.
	Size int64
	// Revision changes whenever the content may have changed.
	Revision string
	// Problem is why the item cannot be read, and empty when it can. With a
	// Problem, a Revision says that the connector knows what the item is; without
	// one it may be a folder, with items below that are not listed.
	Problem Reason
}

// Hides reports whether there may be items below this one that the listing does
// not show and another one may have shown.
func (i Item) Hides() bool {
	if i.Problem == "" || i.Revision != "" {
		return false
	}
	switch i.Problem {
	case predicate.NotRegular, predicate.NotFound, predicate.LimitDepth:
		// There is nothing below, or never was anything that could be listed.
		return false
	}
	return true
}
