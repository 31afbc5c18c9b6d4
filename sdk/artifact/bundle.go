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

// manifestHeader is the first line of a bundle's canonical manifest.
const manifestHeader = "cavra-bundle-v1\n"

// File is one file of a bundle.
type File struct {
	// Path from the bundle's root, with slashes, clean and relative.
	Path   string
	Digest Digest
	Size   int64
}

// BundleDigest is the identity of a bundle: the digest of its canonical
// manifest, a header line, then for each file, in byte order of the paths, the
// digest, the size and the quoted path (Go syntax, ASCII only), one a line. It
// refuses a path that is absolute, unclean or given twice.
func BundleDigest(files []File) (Digest, error) {
	if len(files) == 0 {
		return "", errors.New("digest bundle: no files")
	}
	sorted := slices.SortedFunc(slices.Values(files), func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	var m bytes.Buffer
	m.WriteString(manifestHeader)
	for i, f := range sorted {
		if err := cleanPath(f.Path); err != nil {
			return "", fmt.Errorf("digest bundle: %w", err)
		}
		if i > 0 && sorted[i-1].Path == f.Path {
			return "", fmt.Errorf("digest bundle: path %q is there twice", f.Path)
		}
		if err := f.Digest.Validate(); err != nil {
			return "", fmt.Errorf("digest bundle: %s: %w", f.Path, err)
		}
		fmt.Fprintf(&m, "%s %d %s\n", f.Digest, f.Size, strconv.QuoteToASCII(f.Path))
	}
	return predicate.DigestOf(m.Bytes()), nil
}

func cleanPath(p string) error {
	if p == "" || p == "." || path.IsAbs(p) || path.Clean(p) != p || p == ".." || strings.HasPrefix(p, "../") {
		return fmt.Errorf("path %q: want a clean relative path", p)
	}
	return nil
}
