package pickle

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/cavra/cavra/plugins/formats/content"
)

const (
	// minNested is the least that a nested pickle can be.
	minNested = 4
	// maxParts bounds the nested contents of one pickle that are looked into,
	// maxDecoded their bytes that had to be decoded.
	maxNestedParts = 1000
	maxDecoded     = 32 << 20
)

// part is content within a pickle: bytes as they are written, or decoded ones
// that are held.
type part struct {
	start, end int64
	decoded    []byte
}

// nestedParts are the bytes within a pickle that something could load.
type nestedParts struct {
	parts   []part
	seen    map[value]bool
	decoded int64
	omitted uint64
}

// look keeps bytes that begin as something that is loaded. The walker has just
// passed them.
func (p *nestedParts) look(m *machine, v value) {
	head, ok := m.peek(m.argAt, min(m.argLen, minNested))
	if ok && nests(head) {
		p.keep(m, v, part{start: m.argAt, end: m.argAt + m.argLen})
	}
}

// nests reports whether a head is that of a pickle with a mark, or of an archive
// or a compressed file that could hold one.
func nests(head []byte) bool {
	if len(head) < minNested {
		return false
	}
	switch {
	case head[0] == opProto:
		return head[1] <= highestProtocol && arguments[head[2]] != argUnknown
	case bytes.HasPrefix(head, []byte("PK\x03\x04")), bytes.HasPrefix(head, []byte("\x93NUM")):
		return true
	case bytes.HasPrefix(head, []byte("\x1f\x8b\x08")), bytes.HasPrefix(head, []byte("BZh")), bytes.HasPrefix(head, []byte("\xfd7zX")):
		return true
	}
	return false
}

// add takes over what another machine has found.
func (p *nestedParts) add(q nestedParts) {
	for _, what := range q.parts {
		if len(p.parts) >= maxNestedParts || p.decoded+int64(len(what.decoded)) > maxDecoded {
			p.omitted++
			continue
		}
		p.decoded += int64(len(what.decoded))
		p.parts = append(p.parts, what)
	}
	p.omitted += q.omitted
}

func (p *nestedParts) keep(m *machine, v value, what part) {
	if p.seen[v] {
		return
	}
	if len(p.parts) >= maxNestedParts || p.decoded+int64(len(what.decoded)) > maxDecoded {
		p.omitted++
		return
	}
	if p.seen == nil {
		p.seen = make(map[value]bool)
	}
	p.seen[v] = true
	p.decoded += int64(len(what.decoded))
	what.start, what.end = m.place(what.start), m.place(what.end-1)+1
	p.parts = append(p.parts, what)
}

// offer looks at all that is given to something that is not vetted: bytes, text,
// and what can be computed from them.
func (p *nestedParts) offer(m *machine, v value) {
	p.offerAt(m, v, 0)
}

func (p *nestedParts) offerAt(m *machine, v value, depth int) {
	if depth > 4 || len(p.parts) >= maxNestedParts {
		return
	}
	switch v.kind() {
	case kindNode:
		if n := m.nodes.get(v); n != nil {
			for _, item := range n.known() {
				p.offerAt(m, item, depth+1)
			}
		}
	case kindLiteral:
		if v.isBytes() || v.isText() {
			p.offerLiteral(m, v)
		}
	case kindResult:
		if c, ok := m.constant(v, 0); ok && (c.kind == isBytes || c.kind == isText) {
			p.offerDecoded(m, v, c.s)
			return
		}
		if n := m.nodes.get(v); n != nil {
			for _, arg := range n.known() {
				p.offerAt(m, arg, depth+1)
			}
		}
	}
}

func (p *nestedParts) offerLiteral(m *machine, v value) {
	at, n, ok := m.extent(v)
	if !ok || n < minNested || p.seen[v] {
		return
	}
	head, ok := m.peek(at, min(n, 64))
	if !ok {
		return
	}
	if nests(head) || arguments[head[0]] != argUnknown && v.isBytes() {
		p.keep(m, v, part{start: at, end: at + n})
		return
	}
	if decoded, ok := m.decodedLiteral(v); ok {
		p.keep(m, v, part{start: at, end: at + n, decoded: decoded})
	}
}

// decodedLiteral undoes hexadecimal or base64, when what it hides begins as
// something that is loaded.
func (m *machine) decodedLiteral(v value) ([]byte, bool) {
	c, ok := m.literalConstant(v)
	if !ok || c.kind != isText && c.kind != isBytes || len(c.s) < 2*minNested {
		return nil, false
	}
	var head [2 * minNested]byte
	copy(head[:], c.s)
	if _, err := hex.DecodeString(string(head[:])); err == nil {
		if out, ok := unhex([]constant{c}); ok && nests(out.s) {
			return out.s, true
		}
	}
	if out, ok := unbase64([]constant{c}); ok && nests(out.s) {
		return out.s, true
	}
	if c.kind == isText && arguments[c.s[0]] != argUnknown {
		return c.s, true
	}
	return nil, false
}

func (p *nestedParts) offerDecoded(m *machine, v value, b []byte) {
	if len(b) < minNested || arguments[b[0]] == argUnknown && !nests(b) {
		return
	}
	n := m.nodes.get(v)
	if n == nil {
		return
	}
	p.keep(m, v, part{start: m.at, end: m.at + 1, decoded: b})
}

// enter scans the nested contents of a pickle. Bytes that are no pickle and no
// archive are data, and nothing is said of them.
func (p *nestedParts) enter(ctx context.Context, v *content.Visit) error {
	for _, n := range p.parts {
		if err := n.enter(ctx, v); err != nil {
			return fmt.Errorf("scan nested content: %w", err)
		}
	}
	if p.omitted > 0 {
		v.Found("pickle.limit", ID, 0, fmt.Sprintf("%d nested contents not looked into", p.omitted))
	}
	return nil
}

func (n part) enter(ctx context.Context, v *content.Visit) error {
	span := content.Span{Name: fmt.Sprintf("bytes@%d", n.start), Start: n.start, End: n.end}
	if n.decoded != nil {
		span.Bytes, span.Size = bytes.NewReader(n.decoded), int64(len(n.decoded))
	} else {
		span.Bytes, span.Size, span.Direct = io.NewSectionReader(v.Bytes, n.start, n.end-n.start), n.end-n.start, true
	}
	head := make([]byte, min(span.Size, minNested))
	if err := content.ReadFull(span.Bytes, head, 0); err != nil {
		return err
	}
	if !nests(head) || head[0] == opProto {
		t, err := tryBytes(ctx, v, span.Bytes, 0, span.Size)
		if err != nil || !t.imports && !t.calls && (!t.done || head[0] != opProto) {
			return err
		}
	}
	_, err := v.Enter(ctx, span)
	return err
}
