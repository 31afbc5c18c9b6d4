// Package inert identifies content that nothing executes, and proves it by
// structure: text that is read to its end, and images that end where their
// format says. Text that some loader runs (Python, scripts, markup, templates,
// configuration that names code) is identified as such and left unread.
package inert

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/scanner"

	"github.com/cavra/cavra/plugins/formats/content"
)

// chunk is how much text is looked at at a time; overlap is kept before it so
// that no marker is missed at a boundary.
const (
	chunk   = 64 << 10
	overlap = 512
)

// Empty is content without a byte.
type Empty struct{}

// Identify implements content.Format.
func (Empty) Identify(_ context.Context, v *content.Visit) (bool, error) { return v.Size == 0, nil }

// Scan implements content.Format.
func (Empty) Scan(_ context.Context, v *content.Visit) error {
	v.Format = "empty"
	return nil
}

// Text is UTF-8 text of any kind: JSON, or else prose, tables, settings, or
// something that a loader runs. What it hands on is claimed there; without the
// function it is unread.
type Text struct {
	// JSON scans JSON with keys that lead to code, Settings the same in another
	// spelling, and Template a template.
	JSON, Settings, Template func(ctx context.Context, v *content.Visit) error
	// Expression scans text that is no template unless it holds an expression
	// that would be an attack.
	Expression func(ctx context.Context, v *content.Visit) (bool, error)
	// Python scans text that may be a program. It reports whether all of it was
	// understood as one, and whether it could be settings as well.
	Python func(ctx context.Context, v *content.Visit) (understood, settings bool, err error)
}

// Identify looks at the beginning only; Scan reads all.
func (Text) Identify(_ context.Context, v *content.Visit) (bool, error) {
	_, ok := printable(v.Head, v.Size > int64(len(v.Head)))
	return ok, nil
}

// Scan implements content.Format.
func (t Text) Scan(ctx context.Context, v *content.Visit) error {
	if c := firstByte(v.Head); c == '{' || c == '[' || c == '"' {
		code, err := readJSON(ctx, io.NewSectionReader(v.Bytes, 0, v.Size), v.Size)
		if err == nil && len(code) > 0 && t.JSON != nil {
			return t.JSON(ctx, v)
		}
		if err == nil {
			return scanJSON(v, code)
		}
		if !errors.Is(err, errNotJSON) {
			return fmt.Errorf("read JSON: %w", err)
		}
	}
	return t.scanText(ctx, v)
}

func firstByte(b []byte) byte {
	b = bytes.TrimLeft(bytes.TrimPrefix(b, []byte("\ufeff")), " \t\r\n")
	if len(b) == 0 {
		return 0
	}
	return b[0]
}

func scanJSON(v *content.Visit, code []place) error {
	v.Format = "json"
	v.Parsed(0, v.Size)
	for _, p := range code {
		at := min(p.at, v.Size)
		v.Unread(at, at, predicate.UnsupportedFormat)
	}
	return nil
}

// markers are texts that some loader runs, with the format that each means. They
// are looked for in lower case.
var markers = []struct {
	text   string
	format string
}{
	{"{%", "jinja"},
	{"<script", "html"}, {"<!doctype html", "html"}, {"<html", "html"}, {"<iframe", "html"},
	{"<object", "html"}, {"<embed", "html"}, {"javascript:", "html"},
	{"<svg", "svg"}, {"<?xml", "xml"}, {"<?php", "script"},
	{"!!python/", "yaml"}, {"!python/", "yaml"}, {"yaml.org,2002:python", "yaml"},
	{`_target_:`, "config"}, {`"_target_"`, "config"}, {`auto_map:`, "config"}, {`"auto_map"`, "config"},
	{"\nchat_template:", "config"}, {`"chat_template"`, "config"}, {"custom_pipeline:", "config"}, {`"custom_pipeline`, "config"},
	{"loader_module:", "config"}, {`"loader_module"`, "config"}, {`"chat_template":`, "config"},
	{"{{", expression},
}

// expression marks text that could be a template of expressions only.
const expression = "expression"

// codeWords are the keys of settings that lead to code, in any spelling that YAML
// has for a key: quoted or not, with white space before the colon, or on a line of
// its own. Text that has one is read as settings and stays what it is.
var codeWords = []string{"_target_", "auto_map", "auto_mapping", "chat_template", "custom_pipeline", "custom_pipelines", "loader_module"}

// named marks text with such a word.
const named = "named"

// pair are words that lead to code where a text has both: what "target" names is
// called with "params" (CompVis' and Stability's way to instantiate).
var pair = [2]string{"target", "params"}

// namesCode notes in seen whether text has a key that leads to code, plain or with
// the escapes that double quotes allow (YAML 1.2, section 5.7).
func namesCode(b []byte, seen map[string]bool) {
	for _, w := range pair {
		seen[w] = seen[w] || hasKey(b, w)
	}
	if seen[named] {
		return
	}
	seen[named] = seen[pair[0]] && seen[pair[1]] || escapesKey(b) || bytes.Contains(b, []byte("%TAG")) || escapesTag(b) ||
		slices.ContainsFunc(codeWords, func(w string) bool { return hasKey(b, w) })
}

// hasKey reports whether a word is there as a key may be.
func hasKey(b []byte, word string) bool {
	for {
		i := bytes.Index(b, []byte(word))
		if i < 0 {
			return false
		}
		b = b[i+len(word):]
		after := bytes.TrimLeft(bytes.TrimLeft(b, `"'`), " \t")
		// What is not ASCII may be one of Unicode's ends of a line.
		if len(after) == 0 || after[0] >= utf8.RuneSelf || bytes.IndexByte([]byte(":,]}\r\n#"), after[0]) >= 0 {
			return true
		}
	}
}

// maxEscaped is how long a key with escapes may be.
const maxEscaped = 160

// escapesKey looks for a key in double quotes whose escapes may spell a word that
// leads to code: a short one of escapes and of the letters of such words.
func escapesKey(b []byte) bool {
	for from := bytes.IndexByte(b, '\\'); from >= 0 && from < len(b); {
		start := bytes.LastIndexByte(b[max(0, from-maxEscaped):from], '"')
		end := from
		for end < len(b) && end < from+maxEscaped && b[end] != '"' {
			if b[end] == '\\' {
				end++
			}
			end++
		}
		if start >= 0 && end < len(b) && b[end] == '"' {
			if after := bytes.TrimLeft(b[end+1:], " \t"); len(after) == 0 || after[0] == ':' || after[0] == '\n' || after[0] == '\r' {
				return true
			}
		}
		next := bytes.IndexByte(b[min(end+1, len(b)):], '\\')
		if next < 0 {
			return false
		}
		from = end + 1 + next
	}
	return false
}

// escapesTag looks for a tag of YAML with escapes of a URI in it.
func escapesTag(b []byte) bool {
	tag := false
	for i, c := range b {
		switch c {
		case ' ', '\t', '\r', '\n':
			tag = false
		case '!':
			tag = true
		case '%':
			if tag && i+2 < len(b) && hex(b[i+1]) && hex(b[i+2]) {
				return true
			}
		}
	}
	return false
}

func hex(c byte) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f' }

// scanText reads the text to its end. What is not text all through is unknown.
func (t Text) scanText(ctx context.Context, v *content.Visit) error {
	buf := make([]byte, overlap+min(chunk, v.Size))
	lower := make([]byte, 0, len(buf))
	var py pythonProof
	format, kept := byFirstLines(v.Head), 0
	seen := make(map[string]bool)
	for at := int64(0); at < v.Size; {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read text: %w", err)
		}
		n := int(min(int64(len(buf)-kept), v.Size-at))
		if err := content.ReadFull(v.Bytes, buf[kept:kept+n], at); err != nil {
			return err
		}
		whole := at+int64(n) == v.Size
		used, ok := printable(buf[kept:kept+n], !whole)
		if !ok {
			v.Format = scanner.Unknown
			v.Unread(0, v.Size, predicate.UnknownFormat)
			return nil
		}
		fresh := buf[kept : kept+used]
		py.feed(fresh)
		lower = appendLower(lower[:0], buf[:kept+used])
		for _, m := range markers {
			if !seen[m.format] && bytes.Contains(lower, []byte(m.text)) {
				seen[m.format] = true
				if format == "text" && m.format != expression {
					format = m.format
				}
			}
		}
		namesCode(buf[:kept+used], seen)
		at += int64(used)
		all := kept + used
		kept = copy(buf, buf[max(0, all-overlap):all])
	}
	if py.possible() && (format != "script" || pythonScript(v.Head)) && format != "pdf" && format != "python" {
		return t.program(ctx, v, seen)
	}
	return t.handOn(ctx, v, format, seen)
}

// program hands on what may be a Python program. Whatever else some reader runs
// in it stays: markup, and a template or settings that are one all the same.
func (t Text) program(ctx context.Context, v *content.Visit, seen map[string]bool) error {
	understood, settings := false, false
	if t.Python != nil {
		var err error
		if understood, settings, err = t.Python(ctx, v); err != nil {
			return err
		}
	}
	if !understood {
		return t.handOn(ctx, v, "python", seen)
	}
	if markup(seen) {
		v.Unread(0, v.Size, predicate.UnsupportedFormat)
	}
	if (seen["jinja"] || seen[expression]) && t.Expression != nil {
		found, err := t.Expression(ctx, v)
		if err == nil && found && t.Template != nil {
			err = t.Template(ctx, v)
		}
		if err != nil {
			return err
		}
	}
	if settings && (seen["config"] || seen["yaml"] || seen[named]) && t.Settings != nil {
		if err := t.Settings(ctx, v); err != nil {
			return err
		}
	}
	v.Format = "python"
	return nil
}

// markup reports whether a browser could run something in text.
func markup(seen map[string]bool) bool {
	return seen["html"] || seen["svg"] || seen["xml"] || seen["script"]
}

// pythonScript reports whether the first line starts Python.
func pythonScript(head []byte) bool {
	line, _, _ := bytes.Cut(head, []byte("\n"))
	return bytes.Contains(line, []byte("python"))
}

// handOn claims text by its format, and what was seen in it besides.
func (t Text) handOn(ctx context.Context, v *content.Visit, format string, seen map[string]bool) error {
	v.Format = format
	read := map[string]func(context.Context, *content.Visit) error{"jinja": t.Template, "config": t.Settings, "yaml": t.Settings}
	whole := format == "text" || read[format] != nil
	whole = whole && !markup(seen)
	if format == "text" && seen[expression] && t.Expression != nil {
		found, err := t.Expression(ctx, v)
		if err != nil {
			return err
		}
		if found && t.Template != nil {
			return t.Template(ctx, v)
		}
	}
	if !whole {
		v.Unread(0, v.Size, predicate.UnsupportedFormat)
	}
	if seen["jinja"] && t.Template != nil {
		if err := t.Template(ctx, v); err != nil {
			return err
		}
		v.Format = format
	}
	if (seen["config"] || seen["yaml"] || seen[named]) && t.Settings != nil {
		return t.Settings(ctx, v)
	}
	if format == "text" {
		v.Parsed(0, v.Size)
	}
	return nil
}

// byFirstLines sees a script by its first line, and a Python program by a
// declared encoding (PEP 263), under which the bytes may mean something else.
func byFirstLines(head []byte) string {
	head = bytes.TrimPrefix(head, []byte("\ufeff"))
	if bytes.HasPrefix(head, []byte("#!")) {
		return "script"
	}
	if bytes.HasPrefix(head, []byte("%PDF-")) {
		return "pdf"
	}
	for range 2 {
		line, rest, _ := bytes.Cut(head, []byte("\n"))
		line = bytes.TrimLeft(line, " \t\f")
		if bytes.HasPrefix(line, []byte("#")) && otherCoding(line) {
			return "python"
		}
		head = rest
	}
	return "text"
}

// plainCodings are encodings under which the characters that Python's grammar
// knows are what they are in UTF-8; others stand in strings and comments only.
var plainCodings = []string{"ascii", "us-ascii", "latin-1", "latin1", "iso-8859-1", "iso-8859-15", "cp1252"}

// otherCoding reports whether the line declares an encoding besides UTF-8 that
// changes what the bytes mean.
func otherCoding(line []byte) bool {
	i := max(bytes.Index(line, []byte("coding:")), bytes.Index(line, []byte("coding=")))
	if i < 0 {
		return false
	}
	name := string(bytes.ToLower(bytes.TrimLeft(line[i+len("coding:"):], " \t")))
	if bytes.Count(line, []byte("coding")) > 1 {
		return true
	}
	end := strings.IndexFunc(name, func(c rune) bool {
		return c != '-' && c != '_' && c != '.' && (c < '0' || c > '9') && (c < 'a' || c > 'z')
	})
	if end >= 0 {
		name = name[:end]
	}
	return !strings.HasPrefix(name, "utf-8") && !slices.Contains(plainCodings, strings.ReplaceAll(name, "_", "-"))
}

func appendLower(to, from []byte) []byte {
	for _, c := range from {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		to = append(to, c)
	}
	return to
}

// printable reports whether b is UTF-8 without control characters, and how much
// of it was looked at: when more follows, a cut character at the end is left.
func printable(b []byte, more bool) (int, bool) {
	for i := 0; i < len(b); {
		c := b[i]
		if c < utf8.RuneSelf {
			if c < ' ' && c != '\n' && c != '\t' && c != '\r' && c != '\f' || c == 0x7f {
				return i, false
			}
			i++
			continue
		}
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n <= 1 {
			return i, more && !utf8.FullRune(b[i:])
		}
		if unicode.IsControl(r) && r != 0x85 {
			return i, false
		}
		i += n
	}
	return len(b), true
}
