// Package xgboost reads XGBoost's models: JSON and UBJSON to the last byte, with
// the numbers by which the library finds its way in a tree held against the
// tree's size. Neither holds code. The binary format of old is identified, and is
// unread: its layout is that of memory.
package xgboost

import (
	"bytes"
	"context"
	"errors"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/cursor"
	"github.com/cavra/cavra/plugins/formats/strictjson"
)

// ID is the class of the findings.
const ID = "xgboost"

// The ids of the formats.
const (
	IDJSON   = "xgboost-json"
	IDUBJSON = "xgboost-ubjson"
	IDBinary = "xgboost-binary"
)

const (
	ruleMalformed = "tree.malformed"
	ruleIndex     = "tree.index"
	ruleDuplicate = "tree.key.duplicate"
)

// maxText bounds a model in JSON, in bytes: it is held in memory.
const maxText = 64 << 20

// Rules lists the rules that this package may name.
func Rules() []string {
	return []string{ruleDuplicate, ruleIndex, ruleMalformed, "archive.entry.hidden", "model.limit"}
}

// UBJSON is a model in Universal Binary JSON.
type UBJSON struct{}

// Identify implements content.Format: an object whose first key is one of a
// model's.
func (UBJSON) Identify(_ context.Context, v *content.Visit) (bool, error) {
	h := v.Head
	if len(h) < 4 || h[0] != '{' {
		return false, nil
	}
	for _, size := range []string{"L\x00\x00\x00\x00\x00\x00\x00", "l\x00\x00\x00", "I\x00", "i", "U"} {
		for _, key := range []string{"learner", "version", "Config", "Model"} {
			if bytes.HasPrefix(h[1:], []byte(size+string(rune(len(key)))+key)) {
				return true, nil
			}
		}
	}
	return false, nil
}

// Scan implements content.Format.
func (UBJSON) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = IDUBJSON
	r := cursor.New(v.Bytes, v.Size)
	u := newUBJ(r, &model{v: v})
	u.value(u.U8(), nil)
	if !u.Ok() {
		return cursor.Settle(v, u.Err(), ID, ruleMalformed, 0)
	}
	v.Parsed(0, r.At())
	return v.Trailing(ctx, ID, r.At())
}

// JSON is a model in JSON.
type JSON struct{}

// Identify implements content.Format.
func (JSON) Identify(_ context.Context, v *content.Visit) (bool, error) {
	h := bytes.TrimLeft(v.Head, " \t\r\n")
	h, object := bytes.CutPrefix(h, []byte("{"))
	h, learner := bytes.CutPrefix(bytes.TrimLeft(h, " \t\r\n"), []byte(`"learner"`))
	return object && learner && bytes.HasPrefix(bytes.TrimLeft(h, " \t\r\n"), []byte(":")), nil
}

// Scan implements content.Format.
func (JSON) Scan(_ context.Context, v *content.Visit) error {
	v.Format = IDJSON
	if v.Size > maxText || !v.Budget.Hold(v.Size) {
		v.Found("model.limit", ID, 0, "too long")
		v.Unread(0, v.Size, predicate.LimitBytes)
		return nil
	}
	defer v.Budget.Release(v.Size)
	b := make([]byte, v.Size)
	if err := content.ReadFull(v.Bytes, b, 0); err != nil {
		return err
	}
	t := &text{r: strictjson.New(b), m: &model{v: v}, cursor: cursor.New(v.Bytes, v.Size)}
	err := t.value(nil)
	t.r.Space()
	if err == nil && t.r.At() != len(b) {
		err = strictjson.ErrSyntax
	}
	if err != nil && !errors.Is(err, strictjson.ErrSyntax) {
		return err
	}
	if err != nil {
		v.Found(ruleMalformed, ID, int64(min(t.r.At(), len(b))), "not the JSON of a model")
		v.Unread(0, v.Size, predicate.Malformed)
		return nil
	}
	v.Parsed(0, v.Size)
	return nil
}

// Binary is the format before 1.0, which 2.x still reads.
type Binary struct{}

// Identify implements content.Format: the mark that XGBoost's Python binding
// wrote before the parameters.
func (Binary) Identify(_ context.Context, v *content.Visit) (bool, error) {
	return bytes.HasPrefix(v.Head, []byte("binf")) && len(v.Head) > 140, nil
}

// Scan implements content.Format.
func (Binary) Scan(_ context.Context, v *content.Visit) error {
	v.Format = IDBinary
	v.Unread(0, v.Size, predicate.UnsupportedFormat)
	return nil
}
