// Package formats is the first-party scanner: one list of formats that identify
// content by its bytes, one budget for all that is nested, and one report.
//
// Content is tried as each format in turn; a pickle is looked for in all of it,
// since a pickle needs no mark of its own and may begin like an image or a
// header. What no format identifies is a gap, never a pass.
package formats

import (
	"context"
	"fmt"
	"slices"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/scanner"

	"github.com/cavra/cavra/plugins/formats/compressed"
	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/gguf"
	"github.com/cavra/cavra/plugins/formats/hdf5"
	"github.com/cavra/cavra/plugins/formats/inert"
	"github.com/cavra/cavra/plugins/formats/jinja"
	"github.com/cavra/cavra/plugins/formats/keras"
	"github.com/cavra/cavra/plugins/formats/lfs"
	"github.com/cavra/cavra/plugins/formats/numpy"
	"github.com/cavra/cavra/plugins/formats/onnx"
	"github.com/cavra/cavra/plugins/formats/opaque"
	"github.com/cavra/cavra/plugins/formats/pickle"
	"github.com/cavra/cavra/plugins/formats/python"
	"github.com/cavra/cavra/plugins/formats/rar"
	"github.com/cavra/cavra/plugins/formats/repository"
	"github.com/cavra/cavra/plugins/formats/safetensors"
	"github.com/cavra/cavra/plugins/formats/secret"
	"github.com/cavra/cavra/plugins/formats/sevenzip"
	"github.com/cavra/cavra/plugins/formats/tar"
	"github.com/cavra/cavra/plugins/formats/tensorflow"
	"github.com/cavra/cavra/plugins/formats/tflite"
	"github.com/cavra/cavra/plugins/formats/torchexport"
	"github.com/cavra/cavra/plugins/formats/torchscript"
	"github.com/cavra/cavra/plugins/formats/zip"
)

// Version is the program's; RulesetVersion changes with any rule or table, and
// makes agents scan everything again.
const (
	Version        = "1.2.0"
	RulesetVersion = "1.2.0"
)

// SoftMemory is the memory in bytes that the program keeps to where it can: past
// it, garbage is collected at once. What a scan may hold is bounded below it.
const SoftMemory = 192 << 20

// Name is what the scanner calls itself.
const Name = "cavra-formats"

// registry lists the formats in the order in which content is tried.
func registry() []content.Format {
	list := append([]content.Format{inert.Empty{}}, foreign()...)
	list = append(list, safetensors.Format{}, gguf.Format{Template: jinja.Scan}, tflite.Format{}, zip.Format{}, tar.Format{}, numpy.Format{}, besidePickle{}, onnx.Format{}, &tensorflow.Format{Settings: scanJSON}, tensorflow.Text{}, tensorflow.Checkpoint{})
	list = append(list, native()...)
	for _, f := range compressed.Formats() {
		list = append(list, f)
	}
	for _, f := range inert.Images() {
		list = append(list, f)
	}
	list = append(list, sevenzip.Format{}, rar.Format{}, lfs.Format{}, hdf5.Format{Settings: scanJSON}, text())
	for _, f := range opaque.Formats() {
		list = append(list, f)
	}
	return list
}

// program implements scanner.Scanner. It has no state between scans.
type program struct {
	formats []content.Format
	limits  content.Limits
}

// New returns the scanner with the shipped limits.
func New() scanner.Scanner { return WithLimits(content.DefaultLimits()) }

// WithLimits returns the scanner with limits of the caller's choice.
func WithLimits(l content.Limits) scanner.Scanner {
	return &program{formats: registry(), limits: l}
}

// Describe implements scanner.Scanner.
func (*program) Describe() scanner.Description {
	rules := slices.Concat([]string{"content.polyglot"}, pickle.Rules(), python.Rules(), zip.Rules(), numpy.Rules(), compressed.Rules(),
		lfs.Rules(), tar.Rules(), sevenzip.Rules(), rar.Rules(), safetensors.Rules(), jinja.Rules(), keras.Rules(), repository.Rules(),
		gguf.Rules(), onnx.Rules(), tensorflow.Rules(), tflite.Rules(), torchscript.Rules(), torchexport.Rules(), hdf5.Rules(),
		nativeRules(), foreignRules(), secret.Rules())
	slices.Sort(rules)
	return scanner.Description{Name: Name, Version: Version, RulesetVersion: RulesetVersion, Rules: slices.Compact(rules)}
}

// Scan implements scanner.Scanner.
func (p *program) Scan(ctx context.Context, target scanner.Target) (scanner.Report, error) {
	report := scanner.Report{Format: scanner.Unknown}
	if err := ctx.Err(); err != nil {
		return report, fmt.Errorf("scan artifact: %w", err)
	}
	size := target.Content.Size()
	v, err := content.NewVisit(target.Content, size, &report, content.NewBudget(p.limits.For(size)), p)
	if err != nil {
		return report, fmt.Errorf("scan artifact: %w", err)
	}
	v.Sibling, v.Place = target.Siblings, target.Path
	err = p.Open(ctx, v)
	if err == nil && v.Sibling != nil && repository.IsManifest(v.Head) {
		err = scanBundle(ctx, v)
	}
	report.Format = v.Format
	if report.Format == "" {
		report.Format = scanner.Unknown
	}
	account, accountErr := coverage.Account(v.Claims(), size)
	if accountErr != nil {
		return report, fmt.Errorf("scan artifact: %w", accountErr)
	}
	report.Coverage = bound(account, size)
	if err != nil {
		return report, fmt.Errorf("scan artifact: %w", err)
	}
	return report, nil
}

// bound keeps the number of ranges within the report's; what is cut off counts
// as unread.
func bound(account []coverage.Range, size int64) []coverage.Range {
	if len(account) < scanner.MaxRanges {
		return account
	}
	kept := account[:scanner.MaxRanges-1]
	from := kept[len(kept)-1].End
	return append(kept, coverage.Range{Kind: predicate.Unread, Start: from, End: size, Reason: predicate.LimitMembers})
}

// Open implements content.Opener: it scans content by the first format that
// identifies it, and besides by those that some reader finds in it all the same.
func (p *program) Open(ctx context.Context, v *content.Visit) error {
	chosen, err := p.identify(ctx, v)
	if err != nil {
		return err
	}
	if chosen == nil {
		v.Format = scanner.Unknown
		v.Unread(0, v.Size, predicate.UnknownFormat)
	} else if err := chosen.Scan(ctx, v); err != nil {
		return err
	}
	if err := p.beside(ctx, v, chosen); err != nil {
		return err
	}
	if err := secrets(ctx, v); err != nil {
		return err
	}
	return hunt(ctx, v, chosen)
}

func (p *program) identify(ctx context.Context, v *content.Visit) (content.Format, error) {
	for _, f := range p.formats {
		ok, err := f.Identify(ctx, v)
		if err != nil {
			return nil, err
		}
		if ok {
			return f, nil
		}
	}
	return nil, nil
}

// beside scans what else the content is. That it is two things is a finding,
// unless it was nothing before.
func (p *program) beside(ctx context.Context, v *content.Visit, chosen content.Format) error {
	format := v.Format
	for _, f := range p.formats {
		b, ok := f.(content.Beside)
		if !ok || f == chosen {
			continue
		}
		found, err := b.IdentifyBeside(ctx, v)
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		if err := b.Scan(ctx, v); err != nil {
			return err
		}
		if carrier, ok := chosen.(carrier); chosen != nil && (!ok || !carrier.Carries(v.Format)) {
			v.Found("content.polyglot", "content", 0, format, v.Format)
		}
		v.Format = format
	}
	return nil
}

// carrier is an ability of formats whose honest content is of another format as
// well.
type carrier interface{ Carries(format string) bool }

// besidePickle is pickle, and looks for one in content of another format too: a
// zip archive's first bytes are an opcode.
type besidePickle struct{ pickle.Format }

// IdentifyBeside implements content.Beside.
func (besidePickle) IdentifyBeside(ctx context.Context, v *content.Visit) (bool, error) {
	return pickle.Imports(ctx, v)
}
