// Package lfs identifies the pointer files that Git LFS leaves in the place of a
// file whose content was not fetched. The text is harmless; the model that it
// stands for has not been seen, and that is reported.
package lfs

import (
	"bytes"
	"context"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
)

// ID is the format's id.
const ID = "git-lfs-pointer"

// maxSize is how long a pointer may be, in bytes (Git LFS specification).
const maxSize = 1024

// marks are the first lines that versions of Git LFS have written.
var marks = []string{
	"version https://git-lfs.github.com/spec/", "version https://hawser.github.com/spec/", "version http://git-media.io/v/",
}

// Rules lists the rules that Scan may name.
func Rules() []string { return []string{"content.pointer"} }

// Format is a pointer as a format of the program.
type Format struct{}

// Identify implements content.Format.
func (Format) Identify(_ context.Context, v *content.Visit) (bool, error) {
	if v.Size > maxSize {
		return false, nil
	}
	for _, m := range marks {
		if bytes.HasPrefix(v.Head, []byte(m)) {
			return true, nil
		}
	}
	return false, nil
}

// Scan implements content.Format. Lines are "key value"; anything else makes the
// pointer one that Git LFS would not follow, which is no less unscanned.
func (Format) Scan(_ context.Context, v *content.Visit) error {
	v.Format = ID
	var evidence []string
	for line := range strings.Lines(string(v.Head)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if key == "oid" || key == "size" {
			evidence = append(evidence, key+" "+strings.ToValidUTF8(value, "\uFFFD"))
		}
	}
	v.Parsed(0, v.Size)
	v.Unread(0, 0, predicate.NotFound)
	v.Found("content.pointer", "pointer", 0, evidence...)
	return nil
}
