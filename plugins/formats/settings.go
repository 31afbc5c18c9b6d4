package formats

import (
	"context"
	"errors"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/coreml"
	"github.com/cavra/cavra/plugins/formats/document"
	"github.com/cavra/cavra/plugins/formats/inert"
	"github.com/cavra/cavra/plugins/formats/jinja"
	"github.com/cavra/cavra/plugins/formats/keras"
	"github.com/cavra/cavra/plugins/formats/mxnet"
	"github.com/cavra/cavra/plugins/formats/paddle"
	"github.com/cavra/cavra/plugins/formats/pickle"
	"github.com/cavra/cavra/plugins/formats/python"
	"github.com/cavra/cavra/plugins/formats/repository"
	"github.com/cavra/cavra/plugins/formats/skops"
	"github.com/cavra/cavra/plugins/formats/strictjson"
	"github.com/cavra/cavra/plugins/formats/torchexport"
	"github.com/cavra/cavra/plugins/formats/torchserve"
)

// text is text with all that reads what text can lead to.
func text() inert.Text {
	return inert.Text{JSON: scanJSON, Settings: scanSettings, Template: jinja.Scan, Expression: scanExpression, Python: scanPython}
}

// dangerous is the judgement of a name by the table that pickles are judged by:
// whatever names a thing to import, the thing is the same.
func dangerous() (func(module, name string) bool, error) {
	table, err := pickle.Shipped()
	if err != nil {
		return nil, err
	}
	return func(module, name string) bool {
		return module != "" && table.Judge(module, name).Judged == predicate.JudgedDangerous
	}, nil
}

// whole reads content into memory, or claims it as beyond a limit. The caller
// calls release.
func whole(v *content.Visit, most, cost int64) (b []byte, release func(), err error) {
	if v.Size > most || !v.Budget.Hold(v.Size*cost) {
		v.Unread(0, v.Size, predicate.LimitBytes)
		return nil, func() {}, nil
	}
	b = make([]byte, v.Size)
	return b, func() { v.Budget.Release(v.Size * cost) }, content.ReadFull(v.Bytes, b, 0)
}

// scanJSON scans JSON with keys that lead to code.
func scanJSON(_ context.Context, v *content.Visit) error {
	v.Format = "json"
	b, release, err := whole(v, document.MaxBytes, document.Cost)
	defer release()
	if err != nil || b == nil {
		return err
	}
	return settings(v, b, func(at int) int64 { return int64(at) })
}

// settings judges a JSON text of a visit's content, and claims all of the content.
func settings(v *content.Visit, b []byte, place func(int) int64) error {
	bad, err := dangerous()
	if err != nil {
		return err
	}
	table, err := pickle.Shipped()
	if err != nil {
		return err
	}
	judge := func(module, name string) string { return table.Judge(module, name).Judged }
	mark := 0
	if strings.HasPrefix(string(b[:min(3, len(b))]), "\ufeff") {
		mark = 3
	}
	in := func(at int) int64 { return place(at + mark) }
	roots, err := document.Read(b[mark:], func(key string, at int) {
		keras.Duplicate(v, key, in(at))
		repository.Duplicate(v, key, in(at))
		skops.Duplicate(v, key, in(at))
	})
	whole := err == nil
	for _, root := range roots {
		if root == nil {
			continue
		}
		keras.Check(v, root, bad, in)
		repository.Check(v, root, bad, in)
		skops.Check(v, root, judge, in)
		coreml.Check(v, root, in)
		paddle.Check(v, root, in)
		mxnet.Check(v, root, in)
		torchserve.Check(v, root, bad, in)
		if err := torchexport.Check(v, root, in); err != nil {
			return err
		}
		root.Walk(func(n *document.Node) {
			for _, t := range n.All("chat_template") {
				whole = templates(v, t, in) && whole
			}
		})
	}
	switch {
	case errors.Is(err, document.ErrTooMany):
		v.Unread(0, v.Size, predicate.LimitMembers)
	case !whole:
		v.Unread(0, v.Size, predicate.Malformed)
	}
	v.Parsed(0, v.Size)
	return nil
}

// templates judges the templates in a value: one, or a list of them by name.
func templates(v *content.Visit, n *document.Node, place func(int) int64) bool {
	read := true
	n.Walk(func(n *document.Node) {
		if n.Kind == strictjson.String {
			read = jinja.Report(v, n.Text, func(int) int64 { return place(n.At) }) && read
		}
	})
	return read
}

// scanSettings scans settings that are no JSON.
func scanSettings(_ context.Context, v *content.Visit) error {
	b, release, err := whole(v, document.MaxBytes, 2)
	defer release()
	if err != nil || b == nil {
		return err
	}
	bad, err := dangerous()
	if err != nil {
		return err
	}
	if !repository.CheckText(v, string(b), bad) {
		v.Unread(0, v.Size, predicate.UnsupportedFormat)
	}
	v.Parsed(0, v.Size)
	return nil
}

// scanBundle judges a bundle as a whole by its manifest, which has been scanned
// as what it is besides.
func scanBundle(ctx context.Context, v *content.Visit) error {
	bad, err := dangerous()
	if err != nil {
		return err
	}
	return repository.ScanBundle(ctx, v, bad)
}

// scanPython scans what may be a program.
func scanPython(ctx context.Context, v *content.Visit) (understood, settings bool, err error) {
	p, err := python.Scan(ctx, v)
	return p.Understood, p.Plain, err
}

// scanExpression reports whether text is a template that would be an attack, or
// may be one that is too large to tell. What is none is text.
func scanExpression(_ context.Context, v *content.Visit) (bool, error) {
	if v.Size > jinja.MaxBytes || !v.Budget.Hold(2*v.Size) {
		return true, nil
	}
	defer v.Budget.Release(2 * v.Size)
	b := make([]byte, v.Size)
	if err := content.ReadFull(v.Bytes, b, 0); err != nil {
		return false, err
	}
	problems, err := jinja.Check(string(b))
	if err != nil { // what is not read as a template is text
		return errors.Is(err, jinja.ErrLimit), nil
	}
	return len(problems) > 0, nil
}
