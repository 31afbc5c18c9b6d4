// Package markup reads XML as a stream, in bounded memory, and reports what
// makes readers of XML leave the document: external entities and document types,
// inclusions and stylesheets. The formats that are written in XML say what their
// elements mean.
package markup

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/text/encoding/charmap"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/cursor"
)

const (
	class         = "xml"
	ruleExternal  = "xml.entity.external"
	ruleEntity    = "xml.entity"
	ruleInclude   = "xml.include"
	ruleMalformed = "xml.malformed"
)

const (
	// maxToken bounds one element's start, text or comment, in bytes.
	maxToken = 16 << 20
	// maxElements and maxDepth bound the work: a forest of a thousand trees has
	// a million elements or so.
	maxElements = 2_000_000
	maxDepth    = 5_000
)

// Rules lists the rules that Walk may name.
func Rules() []string {
	return []string{ruleExternal, ruleEntity, ruleInclude, ruleMalformed, "model.limit"}
}

// Visitor is told of what a document holds, in order.
type Visitor interface {
	// Start is called for an element at an offset, End behind it.
	Start(e xml.StartElement, at int64) error
	End(name xml.Name) error
	// Text gives text between elements, until the next call.
	Text(text []byte, at int64) error
}

// maxBefore bounds the parts that stand before the first element.
const maxBefore = 10_000

// Root is the first element of a document, wherever it begins.
func Root(v *content.Visit) (xml.StartElement, bool) {
	if !begins(v.Head, "<") {
		return xml.StartElement{}, false
	}
	d := decoder(&meter{r: io.NewSectionReader(v.Bytes, 0, v.Size), left: maxToken})
	for range maxBefore {
		t, err := d.RawToken()
		if err != nil {
			break
		}
		if e, ok := t.(xml.StartElement); ok {
			return e, true
		}
	}
	return xml.StartElement{}, false
}

// begins reports whether a document begins with a text, in capitals or not.
func begins(head []byte, text string) bool {
	head = bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\ufeff")), " \t\r\n")
	return len(head) >= len(text) && strings.EqualFold(string(head[:len(text)]), text)
}

// Format is any other document that declares its type or entities: a reader may be
// led elsewhere by it, whatever it means. Its meaning is not known.
type Format struct{}

// Identify implements content.Format. Pages of the web declare no entities.
func (Format) Identify(_ context.Context, v *content.Visit) (bool, error) {
	if !begins(v.Head, "<!DOCTYPE") && !begins(v.Head, "<?xml") && !begins(v.Head, "<!--") {
		return false, nil
	}
	e, ok := Root(v)
	if ok && !strings.EqualFold(e.Name.Local, "html") {
		return bytes.Contains(v.Head, []byte("<!ENTITY")) || v.Size > int64(len(v.Head)) && bytes.Contains(v.Head, []byte("<!DOCTYPE")), nil
	}
	return !ok && begins(v.Head, "<!DOCTYPE") && !begins(v.Head, "<!DOCTYPE html"), nil
}

// Scan implements content.Format.
func (Format) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = class
	v.Unread(0, 0, predicate.UnsupportedFormat)
	return Walk(ctx, v, nothing{})
}

// nothing is a visitor of what has no meaning here.
type nothing struct{}

func (nothing) Start(xml.StartElement, int64) error { return nil }
func (nothing) End(xml.Name) error                  { return nil }
func (nothing) Text([]byte, int64) error            { return nil }

// Attr is the value of an attribute, or "".
func Attr(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

func decoder(r io.Reader) *xml.Decoder {
	d := xml.NewDecoder(r)
	d.CharsetReader = func(charset string, in io.Reader) (io.Reader, error) {
		switch strings.ToLower(charset) {
		case "us-ascii", "ascii", "utf8":
			return in, nil
		case "iso-8859-1", "latin1":
			return charmap.ISO8859_1.NewDecoder().Reader(in), nil
		case "windows-1252", "cp1252":
			return charmap.Windows1252.NewDecoder().Reader(in), nil
		}
		return nil, &cursor.Fault{What: "the text is in an encoding that is not known", Why: predicate.UnsupportedFormat}
	}
	return d
}

// meter bounds what a token takes.
type meter struct {
	r    io.Reader
	left int
}

func (m *meter) Read(p []byte) (int, error) {
	if m.left <= 0 {
		return 0, &cursor.Fault{Rule: "model.limit", What: "a part of the text is too long", Why: predicate.LimitBytes}
	}
	n, err := m.r.Read(p)
	m.left -= n
	return n, err
}

// walk is one walk over one document.
type walk struct {
	v        *content.Visit
	visitor  Visitor
	d        *xml.Decoder
	m        *meter
	depth    int
	elements int
	rooted   bool
}

// Walk reads the whole content as one document, and claims it: all of it as
// parsed, or what lies behind a fault as unread.
func Walk(ctx context.Context, v *content.Visit, visitor Visitor) error {
	m := &meter{r: io.NewSectionReader(v.Bytes, 0, v.Size)}
	k := &walk{v: v, visitor: visitor, m: m, d: decoder(m)}
	err := k.run(ctx)
	var syntax *xml.SyntaxError
	var fault *cursor.Fault
	switch {
	case err == nil:
		v.Parsed(0, v.Size)
		return nil
	case errors.As(err, &syntax):
		err = k.fault(syntax.Msg)
	case errors.As(err, &fault) && fault.At == 0:
		fault.At = k.at()
	}
	return cursor.Settle(v, err, class, ruleMalformed, 0)
}

func (k *walk) at() int64 { return min(k.d.InputOffset(), k.v.Size) }

func (k *walk) fault(what string) error {
	return &cursor.Fault{What: what, Why: predicate.Malformed, At: k.at()}
}

func (k *walk) run(ctx context.Context) error {
	for {
		k.m.left = maxToken
		at := k.at()
		t, err := k.d.Token()
		if errors.Is(err, io.EOF) {
			if !k.rooted || k.depth > 0 {
				return k.fault("the document is cut short")
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("read XML: %w", err)
		}
		if err := k.token(ctx, t, at); err != nil {
			return err
		}
	}
}

func (k *walk) token(ctx context.Context, t xml.Token, at int64) error {
	switch t := t.(type) {
	case xml.StartElement:
		return k.start(ctx, t, at)
	case xml.EndElement:
		k.depth--
		return k.visitor.End(t.Name)
	case xml.CharData:
		if k.depth > 0 {
			return k.visitor.Text(t, at)
		}
		if len(bytes.TrimSpace(bytes.TrimPrefix(t, []byte("\ufeff")))) > 0 {
			return k.fault("text outside of the document")
		}
	case xml.Directive:
		k.directive(t, at)
	case xml.ProcInst:
		if t.Target != "xml" {
			k.v.Found(ruleInclude, class, at, "a processing instruction", cursor.Clean(t.Target))
		}
	}
	return nil
}

func (k *walk) start(ctx context.Context, e xml.StartElement, at int64) error {
	if k.depth == 0 && k.rooted {
		return k.fault("a second document")
	}
	k.rooted = true
	k.depth++
	k.elements++
	if k.elements > maxElements {
		return &cursor.Fault{Rule: "model.limit", What: "too many elements", Why: predicate.LimitMembers, At: at}
	}
	if k.depth > maxDepth {
		return &cursor.Fault{Rule: "model.limit", What: "elements are nested too deep", Why: predicate.LimitDepth, At: at}
	}
	if k.elements%4096 == 0 && ctx.Err() != nil {
		return ctx.Err()
	}
	if strings.Contains(e.Name.Space, "XInclude") || e.Name.Space == "xi" {
		k.v.Found(ruleInclude, class, at, "an inclusion", cursor.Clean(Attr(e, "href")))
	}
	return k.visitor.Start(e, at)
}

// directive looks at a document type. Only what is in quotes could hold the words
// without meaning them; no honest document has them there.
func (k *walk) directive(d []byte, at int64) {
	text := strings.ToUpper(string(d))
	head, _, _ := strings.Cut(text, "[")
	entity := strings.Contains(text, "<!ENTITY")
	external := strings.Contains(text, "SYSTEM") || strings.Contains(text, "PUBLIC")
	switch {
	case external && (entity || strings.HasPrefix(head, "DOCTYPE")):
		k.v.Found(ruleExternal, class, at, cursor.Clean(string(d)))
	case entity:
		k.v.Found(ruleEntity, class, at, cursor.Clean(string(d)))
	}
}
