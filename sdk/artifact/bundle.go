package artifact

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
)

// File is one file of a bundle.
type File struct {
	// Path from the bundle's root, with slashes, clean and relative.
	Path   string
	Digest Digest
	Size   int64
}

// ManifestHeader is the first line of a bundle's canonical manifest.
const ManifestHeader = "cavra-bundle-v1\n"

// Manifest is the canonical manifest of a bundle: a header line, then for each
// file, in byte order of the paths, the digest, the size and the quoted path (Go
// syntax, ASCII only), one a line. It refuses a path that is absolute, unclean or
// given twice. A scanner is handed it as the bundle's own content.
func Manifest(files []File) ([]byte, error) {
	if len(files) == 0 {
		return nil, errors.New("write manifest: no files")
	}
	sorted := slices.SortedFunc(slices.Values(files), func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	var m bytes.Buffer
	m.WriteString(ManifestHeader)
	for i, f := range sorted {
		if err := cleanPath(f.Path); err != nil {
			return nil, fmt.Errorf("write manifest: %w", err)
		}
		if i > 0 && sorted[i-1].Path == f.Path {
			return nil, fmt.Errorf("write manifest: path %q is there twice", f.Path)
		}
		if err := f.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("write manifest: %s: %w", f.Path, err)
		}
		fmt.Fprintf(&m, "%s %d %s\n", f.Digest, f.Size, strconv.QuoteToASCII(f.Path))
	}
	return m.Bytes(), nil
}

// ParseManifest reads a canonical manifest, and refuses anything else.
func ParseManifest(b []byte) ([]File, error) {
	text, ok := strings.CutPrefix(string(b), ManifestHeader)
	if !ok {
		return nil, errors.New("parse manifest: no header")
	}
	var files []File
	for line := range strings.Lines(text) {
		digest, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		size, quoted, _ := strings.Cut(rest, " ")
		n, err := strconv.ParseInt(size, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("parse manifest: size: %w", err)
		}
		path, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, fmt.Errorf("parse manifest: path: %w", err)
		}
		files = append(files, File{Path: path, Digest: Digest(digest), Size: n})
	}
	again, err := Manifest(files)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, b) {
		return nil, errors.New("parse manifest: not canonical")
	}
	return files, nil
}

// BundleDigest is the identity of a bundle: the digest of its canonical manifest.
func BundleDigest(files []File) (Digest, error) {
	m, err := Manifest(files)
	if err != nil {
		return "", fmt.Errorf("digest bundle: %w", err)
	}
	return predicate.DigestOf(m), nil
}

func cleanPath(p string) error {
	if p == "" || p == "." || path.IsAbs(p) || path.Clean(p) != p || p == ".." || strings.HasPrefix(p, "../") {
		return fmt.Errorf("path %q: want a clean relative path", p)
	}
	return nil
}
