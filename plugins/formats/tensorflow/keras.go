package tensorflow

import (
	"errors"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/strictjson"
)

// maxMetadata bounds the JSON of one Keras object, in bytes.
const maxMetadata = 16 << 20

// lambdas are the classes of Keras objects that hold marshalled Python code.
var lambdas = map[string]bool{"Lambda": true, "__lambda__": true, "__marshal__": true}

// metadata reads the JSON that Keras keeps of an object, and looks for code in
// it at any depth.
func (s *scan) metadata(start, end int64) error {
	n := end - start
	if n == 0 {
		return nil
	}
	if n > maxMetadata || !s.v.Budget.Hold(n) {
		s.v.Found("model.limit", class, start, "an object's configuration is too long")
		s.v.Unread(start, end, predicate.LimitBytes)
		return nil
	}
	defer s.v.Budget.Release(n)
	text := make([]byte, n)
	if err := content.ReadFull(s.v.Bytes, text, start); err != nil {
		return err
	}
	r := strictjson.New(text)
	err := s.json(r, start, "")
	r.Space()
	if err == nil && r.At() != len(text) {
		err = strictjson.ErrSyntax
	}
	if errors.Is(err, strictjson.ErrSyntax) {
		s.v.Found("tf.malformed", class, start+int64(r.At()), "an object's configuration is no JSON")
		s.v.Unread(start, end, predicate.Malformed)
		return nil
	}
	return err
}

func (s *scan) json(r *strictjson.Reader, start int64, key string) error {
	switch r.Kind() {
	case strictjson.Object:
		return r.Object(func(key string, _ int) error { return s.json(r, start, key) })
	case strictjson.Array:
		return r.Array(func(int) error { return s.json(r, start, "") })
	case strictjson.String:
		at := r.At()
		text, err := r.String()
		if key == "class_name" && lambdas[text] || key == "function_type" && text == "lambda" {
			s.v.Found("tf.keras.lambda", class, start+int64(at), text)
		}
		return err
	}
	return r.Skip()
}
