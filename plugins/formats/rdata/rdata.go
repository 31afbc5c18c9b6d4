// Package rdata reads what R serializes (R Internals 1.8, versions 2 and 3): .rds
// and .RData files, in the external, the native and the text representation, once
// they are decompressed. Every object is walked. Promises that are evaluated when
// they are looked at, calls of functions that run programs or reach the network,
// packages that are loaded, and what else R does with an object that it has read,
// are reported. Bytecode is named and left unread.
package rdata

import (
	"bytes"
	"context"
	"encoding/binary"
	"strconv"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/cursor"
)

// ID is the format's id.
const ID = "rdata"

const (
	rulePromise   = "r.promise"
	ruleCall      = "r.call.dangerous"
	rulePackage   = "r.package.unknown"
	ruleAltrep    = "r.altrep.unknown"
	ruleMap       = "r.altrep.file"
	ruleBinding   = "r.binding.active"
	ruleHook      = "r.hook"
	ruleCode      = "r.code"
	rulePointer   = "r.pointer"
	ruleMalformed = "r.malformed"
)

// Rules lists the rules that Scan may name.
func Rules() []string {
	return []string{
		rulePromise, ruleCall, rulePackage, ruleAltrep, ruleMap, ruleBinding, ruleHook, ruleCode, rulePointer, ruleMalformed,
		"archive.entry.hidden", "model.limit",
	}
}

// Format is R's serialization as a format of the program.
type Format struct{}

// Identify implements content.Format.
func (Format) Identify(_ context.Context, v *content.Visit) (bool, error) {
	h, workspace := body(v.Head)
	if len(h) < 14 || h[1] != '\n' {
		return false, nil
	}
	var version, writer uint64
	switch h[0] {
	case 'X':
		version, writer = uint64(binary.BigEndian.Uint32(h[2:])), uint64(binary.BigEndian.Uint32(h[6:]))
	case 'B':
		version, writer = uint64(binary.LittleEndian.Uint32(h[2:])), uint64(binary.LittleEndian.Uint32(h[6:]))
	case 'A':
		fields := bytes.SplitN(h[2:], []byte("\n"), 3)
		if len(fields) < 3 {
			return false, nil
		}
		var err error
		if version, err = strconv.ParseUint(string(fields[0]), 10, 8); err != nil {
			return false, nil //nolint:nilerr // it is another format
		}
		if writer, err = strconv.ParseUint(string(fields[1]), 10, 32); err != nil {
			return false, nil //nolint:nilerr // it is another format
		}
	}
	return workspace && version > 0 || (version == 2 || version == 3) && writer >= 1<<16 && writer < 1<<20, nil
}

// body is what follows the mark of a workspace, if there is one.
func body(head []byte) ([]byte, bool) {
	if len(head) > 5 && (bytes.HasPrefix(head, []byte("RDX")) || bytes.HasPrefix(head, []byte("RDA")) || bytes.HasPrefix(head, []byte("RDB"))) &&
		(head[3] == '2' || head[3] == '3') && head[4] == '\n' {
		return head[5:], true
	}
	return head, false
}

// Scan implements content.Format.
func (Format) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = ID
	_, workspace := body(v.Head)
	s := &scan{v: v, r: cursor.New(v.Bytes, v.Size), ctx: ctx.Err, workspace: workspace}
	if workspace {
		s.r.Skip(5)
	}
	s.header()
	s.item(0)
	s.space()
	s.claim()
	if err := s.r.Err(); err != nil {
		return cursor.Settle(v, err, ID, ruleMalformed, s.claimed)
	}
	return v.Trailing(ctx, ID, s.r.At())
}

// header reads the representation, the versions and the encoding.
func (s *scan) header() {
	kind := s.r.Bytes(2)
	if kind == nil {
		return
	}
	s.text = kind[0] == 'A'
	if kind[0] == 'X' {
		s.r.Order = binary.BigEndian
	}
	version := s.int()
	s.int()
	s.int()
	switch {
	case !s.r.Ok():
	case version == 3:
		n := s.int()
		if n < 0 || n > 64 {
			s.r.Fail("the name of an encoding is too long")
			return
		}
		s.chars(int64(n))
	case version != 2:
		s.r.Unknown("a version that is not known")
	}
}
