package hdf5

import (
	"bytes"
	"context"
	"encoding/binary"

	"github.com/cavra/cavra/schemas/predicate"
)

// oldGroup reads a group of the first version: a tree of symbol tables, and a heap
// of names.
func (s *scan) oldGroup(ctx context.Context, b []byte) error {
	if len(b) < 2*s.offsets {
		return errMalformed
	}
	tree, heap := s.place(b[:s.offsets]), s.place(b[s.offsets:2*s.offsets])
	if err := s.localHeap(heap); err != nil {
		return err
	}
	return s.tree(ctx, tree, func(node []byte) error {
		for i := range int(binary.LittleEndian.Uint16(node[6:])) {
			child := 8 + 2*s.offsets + s.length + i*(s.offsets+s.length)
			if err := s.symbols(s.place(node[child : child+s.offsets])); err != nil {
				return err
			}
		}
		return nil
	}, 0, s.length, s.internal)
}

// localHeap claims a heap of names: its free blocks are the format's.
func (s *scan) localHeap(at int64) error {
	first, err := s.once(at, kindNames)
	if err != nil || !first {
		return err
	}
	n := 8 + 2*s.length + s.offsets
	b, err := s.w.Bytes(at, n)
	if err != nil {
		return err
	}
	if string(b[:4]) != "HEAP" {
		return errMalformed
	}
	s.Parsed(at, at+int64(n))
	return s.inert(s.place(b[8+2*s.length:n]), little(b[8:8+s.length]))
}

// tree reads the nodes of a version 1 B-tree from the root on, and calls leaf for
// those at its bottom. key is the length of a key in bytes, and rank half the
// entries of a node.
func (s *scan) tree(ctx context.Context, root int64, leaf func(node []byte) error, kind byte, key, rank int) error {
	long := 8 + 2*s.offsets + (2*rank+1)*key + 2*rank*s.offsets
	for todo := []int64{root}; len(todo) > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if first, err := s.once(at, kindTree); err != nil || !first {
			if err != nil {
				return err
			}
			continue
		}
		if s.nodes++; s.nodes > maxNodes {
			return errLimit
		}
		b, err := s.w.Bytes(at, 8)
		if err != nil {
			return err
		}
		level, used := b[5], int(binary.LittleEndian.Uint16(b[6:]))
		if string(b[:4]) != "TREE" || b[4] != kind || used > 2*rank {
			return errMalformed
		}
		node, err := s.w.Bytes(at, 8+2*s.offsets+used*(key+s.offsets)+key)
		if err != nil {
			return err
		}
		node = bytes.Clone(node)
		s.Parsed(at, at+int64(len(node)))
		if err := s.inert(at, int64(long)); err != nil { // the entries that are not used
			return err
		}
		if level == 0 {
			if err := leaf(node); err != nil {
				return err
			}
			continue
		}
		for i := range used {
			child := 8 + 2*s.offsets + key + i*(key+s.offsets)
			todo = append(todo, s.place(node[child:child+s.offsets]))
		}
	}
	return nil
}

// symbols reads a node of a symbol table.
func (s *scan) symbols(at int64) error {
	first, err := s.once(at, kindSymbols)
	if err != nil || !first {
		return err
	}
	b, err := s.w.Bytes(at, 8)
	if err != nil {
		return err
	}
	each, used := 2*s.offsets+24, int(binary.LittleEndian.Uint16(b[6:]))
	if string(b[:4]) != "SNOD" || used > 2*s.leaf {
		return errMalformed
	}
	b, err = s.w.Bytes(at, 8+used*each)
	if err != nil {
		return err
	}
	s.Parsed(at, at+int64(len(b)))
	for i := range used {
		e := b[8+i*each:]
		if binary.LittleEndian.Uint32(e[2*s.offsets:]) == 2 {
			continue // a path in this file
		}
		if err := s.member(s.place(e[s.offsets : 2*s.offsets])); err != nil {
			return err
		}
	}
	return s.inert(at, int64(8+2*s.leaf*each))
}

// smallestFile is the length of the shortest superblock, in bytes.
const smallestFile = 24

// between looks at what no structure has claimed: heaps of sequences, space that
// is free, and what follows the end of the file.
func (s *scan) between(ctx context.Context) error {
	if s.end >= 0 && s.end < s.base+smallestFile {
		s.Found(ruleMalformed, ID, s.base, "ends before it begins")
		s.end = -1
	}
	if s.end >= 0 && s.end < s.Size {
		if err := s.Trailing(ctx, ID, s.end); err != nil {
			return err
		}
	} else if s.end > s.Size {
		s.Found(ruleMalformed, ID, s.Size, "cut short")
		s.Unread(s.Size, s.Size, predicate.Truncated)
	}
	gaps, err := s.gaps()
	if err != nil {
		return err
	}
	for _, g := range gaps {
		for at := g[0]; at < g[1]; {
			next, err := s.free(ctx, at, g[1])
			if err != nil {
				return err
			}
			at = next
		}
	}
	return nil
}

// free looks at space that no structure has claimed, and returns where to go on.
func (s *scan) free(ctx context.Context, at, end int64) (int64, error) {
	if next, err := s.collection(ctx, at, end); err != nil || next > at {
		return next, err
	}
	next := at
	for next < end {
		b, err := s.w.Bytes(next, int(min(end-next, 4096)))
		if err != nil {
			return 0, err
		}
		if n := len(b) - len(bytes.TrimLeft(b, "\x00")); n < len(b) {
			next += int64(n)
			break
		}
		next += int64(len(b))
	}
	if next > at {
		s.Parsed(at, next)
		return next, nil
	}
	// Something that nothing leads to: a heap may follow it.
	for next = at + 8 - (at-s.base)%8; next < end; next += 8 {
		b, err := s.w.Bytes(next, int(min(4, end-next)))
		if err != nil {
			return 0, err
		}
		if string(b) == heapSignature {
			break
		}
	}
	next = min(next, end)
	if at == s.base { // the superblock is broken, and the rest would be this file again
		s.Unread(at, next, predicate.Malformed)
		return next, nil
	}
	_, err := s.Enter(ctx, s.Part(at, next))
	return next, err
}
