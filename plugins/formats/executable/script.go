package executable

import (
	"bytes"
	"context"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/scanner"

	"github.com/cavra/cavra/plugins/formats/content"
)

// Script is text that names its interpreter in the first line, with whatever
// follows: an archive, as in a zipapp (PEP 441), or a program.
type Script struct {
	// Text scans it as text. It leaves the format of what is not text unknown.
	Text func(ctx context.Context, v *content.Visit) error
	// Archive reports whether an archive ends with the content.
	Archive func(ctx context.Context, v *content.Visit) (bool, error)
}

// Identify implements content.Format.
func (Script) Identify(_ context.Context, v *content.Visit) (bool, error) {
	return bytes.HasPrefix(bytes.TrimPrefix(v.Head, []byte("\ufeff")), []byte("#!")), nil
}

// Carries reports whether honest content of this format is of another one as
// well: that a script carries an archive is said by a rule of its own.
func (Script) Carries(string) bool { return true }

// Scan implements content.Format.
func (s Script) Scan(ctx context.Context, v *content.Visit) error {
	if err := s.Text(ctx, v); err != nil {
		return err
	}
	if v.Format != scanner.Unknown {
		if v.Format == "script" {
			v.Found(ruleScript, class, 0, interpreter(v.Head))
		}
		return nil
	}
	what := "bytes that are no text"
	archive, err := s.Archive(ctx, v)
	if err != nil {
		return err
	}
	if archive {
		what = "a zip archive"
	}
	v.Format = "script"
	v.Found(ruleCarrier, class, 0, interpreter(v.Head), what)
	v.Unread(0, v.Size, predicate.UnsupportedFormat)
	return nil
}

// interpreter is the program that the first line names, without its folder.
func interpreter(head []byte) string {
	line, _, _ := bytes.Cut(head[:min(len(head), 256)], []byte("\n"))
	fields := bytes.Fields(bytes.TrimLeft(bytes.TrimPrefix(line, []byte("\ufeff")), "#! \t"))
	for _, f := range fields {
		name := f[bytes.LastIndexByte(f, '/')+1:]
		if string(name) != "env" && !bytes.HasPrefix(name, []byte("-")) {
			return string(bytes.ToValidUTF8(name, []byte("\uFFFD")))
		}
	}
	return ""
}
