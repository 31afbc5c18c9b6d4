package plugin

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/safeio"
	"github.com/cavra/cavra/sdk/scanner"
)

// sparse is a file of a gibibyte that costs no disk.
func sparse(b *testing.B) *safeio.File {
	path := filepath.Join(b.TempDir(), "sparse")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	if err := os.Truncate(path, 1<<30); err != nil {
		b.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	r, err := safeio.NewFile(f, path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = r.Close() })
	return r
}

// noDescriptor hides that a reader has one, so that its bytes go by ranges.
type noDescriptor struct{ artifact.Reader }

// BenchmarkBytes moves a gibibyte to a scanner that reads it ("read") or reads
// and hashes it ("hash").
func BenchmarkBytes(b *testing.B) {
	s := launchScanner(b, "scanner")
	f := sparse(b)
	for _, what := range []string{"read", "hash"} {
		for name, content := range map[string]artifact.Reader{"descriptor": f, "ranges": noDescriptor{f}} {
			b.Run(what+"/"+name, func(b *testing.B) {
				b.SetBytes(1 << 30)
				for b.Loop() {
					if _, err := s.Scan(b.Context(), scanner.Target{Path: what, Content: content}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkSmallScans is what one scan costs beside the scanner's own work.
func BenchmarkSmallScans(b *testing.B) {
	s := launchScanner(b, "scanner")
	small := memory(blob(1000))
	b.Run("one after another", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Scan(b.Context(), scanner.Target{Path: "none", Content: small}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("at once", func(b *testing.B) {
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				if _, err := s.Scan(b.Context(), scanner.Target{Path: "none", Content: small}); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

// BenchmarkLaunch is a start, a description and an end, of a program that is
// measured each time ("path") or once ("program").
func BenchmarkLaunch(b *testing.B) {
	program, err := Load(self(b), "")
	if err != nil {
		b.Fatal(err)
	}
	defer program.Close()
	b.Run("path", func(b *testing.B) { benchmarkLaunch(b, Config{Path: self(b), args: []string{"scanner"}}) })
	b.Run("program", func(b *testing.B) { benchmarkLaunch(b, Config{Program: program, args: []string{"scanner"}}) })
}

func benchmarkLaunch(b *testing.B, cfg Config) {
	for b.Loop() {
		p, err := Launch(b.Context(), cfg)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := p.Scanner(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := p.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPassDescriptor is the passing alone.
func BenchmarkPassDescriptor(b *testing.B) {
	ours, theirs, err := socketPair()
	if err != nil {
		b.Fatal(err)
	}
	from, err := newDescriptors(ours)
	if err != nil {
		b.Fatal(err)
	}
	to, err := newDescriptors(theirs)
	if err != nil {
		b.Fatal(err)
	}
	fd, err := unix.MemfdCreate("bench", unix.MFD_CLOEXEC)
	if err != nil {
		b.Fatal(err)
	}
	var handle uint64
	for b.Loop() {
		handle++
		if err := from.send(b.Context(), handle, fd); err != nil {
			b.Fatal(err)
		}
		f, err := to.claim(b.Context(), handle)
		if err != nil {
			b.Fatal(err)
		}
		_ = f.Close()
	}
	_ = unix.Close(fd)
	_ = from.close()
	_ = to.close()
}
