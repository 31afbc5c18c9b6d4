package xgboost

import (
	"strings"

	"github.com/cavra/cavra/plugins/formats/cursor"
	"github.com/cavra/cavra/plugins/formats/strictjson"
)

// text reads JSON into what the model's check asks for.
type text struct {
	r      *strictjson.Reader
	m      *model
	cursor *cursor.Reader
}

func (t *text) value(path []string) error {
	switch t.r.Kind() {
	case strictjson.Object:
		t.cursor.Goto(int64(t.r.At()))
		t.m.enter(t.cursor, path)
		err := t.r.Object(func(key string, at int) error {
			key = strings.Clone(key[:min(len(key), maxKey)])
			t.m.key(int64(at), path, key)
			return t.value(append(path, key))
		})
		if err == nil {
			t.m.leave(t.cursor, path)
		}
		return err
	case strictjson.Array:
		n := int64(0)
		at := t.r.At()
		below := append(path, "")
		err := t.r.Array(func(int) error {
			n++
			return t.value(below)
		})
		t.m.array(path, n, int64(at))
		return err
	case strictjson.String:
		s, err := t.r.String()
		t.m.text(path, s)
		return err
	case strictjson.Number:
		if len(path) > 1 && t.m.wants(path[:len(path)-1]) {
			return t.number(path)
		}
	}
	return t.r.Skip()
}

// number reads a number that leads to a node: a plain integer, or below zero.
func (t *text) number(path []string) error {
	at := t.r.At()
	if n, err := t.r.Uint(); err == nil {
		t.m.number(path, int64(n))
		return nil
	}
	if t.r.At() != at {
		return strictjson.ErrSyntax
	}
	if err := t.r.Skip(); err != nil {
		return err
	}
	if t.r.At()-at > 2 { // below -1; in older files also -2147483648 for none
		t.m.number(path, -2)
		return nil
	}
	t.m.number(path, -1)
	return nil
}
