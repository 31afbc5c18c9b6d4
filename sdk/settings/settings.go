// Package settings reads configuration files strictly: YAML into a typed
// struct, where an unknown key is an error that names the nearest known one, so
// that a typo never turns a control off.
package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/parser"
)

// maxBytes bounds a configuration file.
const maxBytes = 1 << 20

// ReadFile reads a YAML file over what into holds already, its defaults. Errors
// name the file and the line.
func ReadFile(name string, into any) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	b, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	if len(b) > maxBytes {
		return fmt.Errorf("read configuration %s: larger than %d bytes", name, maxBytes)
	}
	if err := Decode(b, into); err != nil {
		return fmt.Errorf("read configuration %s: %w", name, err)
	}
	return nil
}

// Decode reads YAML over what into holds already. Empty text changes nothing.
func Decode(b []byte, into any) error {
	// The decoder would zero the defaults for a document without content.
	if file, err := parser.ParseBytes(b, 0); err == nil && (len(file.Docs) == 0 || file.Docs[0].Body == nil) {
		return nil
	}
	err := yaml.NewDecoder(bytes.NewReader(b), yaml.Strict()).Decode(into)
	var unknown *yaml.UnknownFieldError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &unknown):
		key := unknown.GetToken().Value
		text := fmt.Sprintf("line %d: key %q is not known", unknown.GetToken().Position.Line, key)
		if near := nearest(key, Keys(into)); near != "" {
			text += fmt.Sprintf("; did you mean %q?", near)
		}
		return errors.New(text)
	}
	return err
}

// Keys lists every key that a configuration struct knows, at any depth, in
// ascending order.
func Keys(config any) []string {
	keys := map[string]bool{}
	collect(reflect.TypeOf(config), keys)
	out := make([]string, 0, len(keys))
	for k := range keys {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func collect(t reflect.Type, keys map[string]bool) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		collect(t.Elem(), keys)
	case reflect.Struct:
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
			if name != "" && name != "-" {
				keys[name] = true
				collect(t.Field(i).Type, keys)
			}
		}
	}
}

// nearest is the known key with the least edit distance, if that is small.
func nearest(key string, known []string) string {
	best, least := "", len(key)/2+1
	for _, k := range known {
		if d := distance(key, k); d < least {
			best, least = k, d
		}
	}
	return best
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
