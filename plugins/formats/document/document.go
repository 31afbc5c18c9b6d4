// Package document reads JSON settings into a small tree that keeps what a
// decoder into maps loses: the order and place of every value, and all values of
// a key that is there more than once. Which of them a reader takes depends on
// the reader, so that a check sees each.
package document

import (
	"errors"
	"strings"

	"github.com/cavra/cavra/plugins/formats/strictjson"
)

const (
	// MaxBytes is how long a text may be. Settings that lead to code are small;
	// vocabularies are large and hold none.
	MaxBytes = 16 << 20
	// MaxNodes of one text.
	MaxNodes = 1 << 18
	// Cost is an upper bound of the memory that a byte of text takes, in bytes.
	Cost = 4
)

// ErrTooMany says that a text holds more than MaxNodes values.
var ErrTooMany = errors.New("too many values")

// Node is one value.
type Node struct {
	Kind strictjson.Kind
	// Text is a string's.
	Text string
	// At is an offset in the text, in bytes.
	At int
	// Keys are those of an object, and Items the values of an object or array.
	Keys  []string
	Items []*Node
}

// Read reads a text of one or more values. The function is told of keys that an
// object has twice.
func Read(text []byte, duplicate func(key string, at int)) ([]*Node, error) {
	b := &builder{r: strictjson.New(text)}
	b.r.Duplicate = duplicate
	var roots []*Node
	for b.r.Kind() != strictjson.None {
		n, err := b.value()
		if err != nil {
			return roots, err
		}
		roots = append(roots, n)
	}
	if b.r.At() != len(text) || len(roots) == 0 {
		return roots, strictjson.ErrSyntax
	}
	return roots, nil
}

type builder struct {
	r     *strictjson.Reader
	count int
}

func (b *builder) value() (*Node, error) {
	if b.count++; b.count > MaxNodes {
		return nil, ErrTooMany
	}
	n := &Node{Kind: b.r.Kind(), At: b.r.At()}
	add := func() error {
		child, err := b.value()
		n.Items = append(n.Items, child)
		return err
	}
	var err error
	switch n.Kind {
	case strictjson.Object:
		err = b.r.Object(func(key string, _ int) error {
			n.Keys = append(n.Keys, strings.Clone(key))
			return add()
		})
	case strictjson.Array:
		err = b.r.Array(func(int) error { return add() })
	case strictjson.String:
		n.Text, err = b.r.String()
	default:
		err = b.r.Skip()
	}
	return n, err
}

// All are the values of a key.
func (n *Node) All(key string) []*Node {
	var list []*Node
	if n == nil || n.Kind != strictjson.Object {
		return nil
	}
	for i, k := range n.Keys {
		if k == key {
			list = append(list, n.Items[i])
		}
	}
	return list
}

// Texts are the strings among the values of a key.
func (n *Node) Texts(key string) []string {
	var list []string
	for _, v := range n.All(key) {
		if v.Kind == strictjson.String {
			list = append(list, v.Text)
		}
	}
	return list
}

// Has reports whether an object has the key.
func (n *Node) Has(key string) bool { return len(n.All(key)) > 0 }

// Walk calls f for the node and all below it, from the top.
func (n *Node) Walk(f func(*Node)) {
	f(n)
	for _, c := range n.Items {
		c.Walk(f)
	}
}
