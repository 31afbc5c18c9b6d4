// Package content is what the packages of the single formats share: bytes that
// are being visited, where they lie in the artifact, what has been said of
// them, and the one budget that all nesting draws on. A format claims bytes and
// adds findings here only; whatever it does not claim counts as unread.
package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/sdk/scanner"
)

// HeadBytes is how much of the beginning a format sees when it identifies.
const HeadBytes = 4096

// Format knows one kind of content.
type Format interface {
	// Identify reports whether the visited content is of this format, by its
	// bytes alone. It makes no claims.
	Identify(ctx context.Context, v *Visit) (bool, error)
	// Scan inspects content that Identify has accepted, and sets v.Format. An
	// error says that the bytes could not be read, or that ctx ended; content
	// that is broken is no error.
	Scan(ctx context.Context, v *Visit) error
}

// Beside is an ability of formats that some reader accepts though the content is
// of another format as well: one that is found from the end, or by a mark far
// from the beginning.
type Beside interface {
	Format
	// IdentifyBeside reports whether such a reader accepts the content.
	IdentifyBeside(ctx context.Context, v *Visit) (bool, error)
}

// Opener scans content whose format is not known yet.
type Opener interface {
	Open(ctx context.Context, v *Visit) error
}

// Visit is one piece of content under inspection: the artifact itself, or a
// member of it. It is used by one goroutine.
type Visit struct {
	Bytes io.ReaderAt
	Size  int64
	// Head is the beginning of the content, HeadBytes of it or all.
	Head []byte
	// Member is the path of members that leads here; empty for the artifact.
	Member string
	Depth  int
	// Format is set by the format that scanned the content.
	Format string
	Budget *Budget
	// Carrier is the end of what a format accounts for that an archive may follow
	// (see formats.carrier); the archive's reader begins to look for it there.
	Carrier int64
	// Sibling opens another file of the artifact's bundle by its path in it. It is
	// nil for a member, and when the artifact belongs to no bundle.
	Sibling func(ctx context.Context, path string) (artifact.Reader, error)
	// Place is the artifact's own path in its bundle, from which siblings are named.
	// It is empty for a member.
	Place string

	// Classes are those, by module and name, that the source in the archive around
	// the content defines; the source is scanned with it. Where AnyClass is the
	// name, all that is in the module is meant.
	Classes map[string]bool

	report *scanner.Report
	opener Opener
	claims []coverage.Range
	// whole are the extents of archives that are complete in themselves.
	whole [][2]int64
}

// AnyClass stands for all names of a module in Classes.
const AnyClass = "*"

// Own reports whether a module's name is one of Classes.
func (v *Visit) Own(module, name string) bool {
	return v.Classes[module+"."+name] || v.Classes[module+"."+AnyClass]
}

// NewVisit begins with the whole artifact.
func NewVisit(bytes io.ReaderAt, size int64, report *scanner.Report, budget *Budget, opener Opener) (*Visit, error) {
	v := &Visit{Bytes: bytes, Size: size, Budget: budget, report: report, opener: opener}
	return v, v.readHead()
}

func (v *Visit) readHead() error {
	v.Head = make([]byte, min(v.Size, HeadBytes))
	return ReadFull(v.Bytes, v.Head, 0)
}

// ReadFull fills p from off. A source that ends early is an error here, since
// its size was fixed before.
func ReadFull(r io.ReaderAt, p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %d bytes at %d: %w", len(p), off, err)
}

// Parsed claims [start, end) as read and interpreted.
func (v *Visit) Parsed(start, end int64) { v.claim(predicate.Parsed, start, end, "") }

// Inert claims [start, end) as data that the format's structure fixes.
func (v *Visit) Inert(start, end int64) { v.claim(predicate.Inert, start, end, "") }

// Unread marks [start, end) as not looked at; the range may be empty.
func (v *Visit) Unread(start, end int64, why predicate.Reason) {
	v.claim(predicate.Unread, start, end, why)
}

func (v *Visit) claim(kind predicate.RangeKind, start, end int64, why predicate.Reason) {
	if start >= end && kind != predicate.Unread {
		return
	}
	if n := len(v.claims); n > 0 && start < end {
		last := &v.claims[n-1]
		if last.End == start && last.Start < last.End && last.Kind == kind && last.Reason == why && last.Member == v.memberOf(kind) {
			last.End = end
			return
		}
	}
	v.claims = append(v.claims, coverage.Range{Kind: kind, Start: start, End: end, Reason: why, Member: v.memberOf(kind)})
}

func (v *Visit) memberOf(kind predicate.RangeKind) string {
	if kind == predicate.Unread {
		return v.Member
	}
	return ""
}

// Found adds a finding at an offset of this content. Evidence is cut to the
// bounds that a finding has.
func (v *Visit) Found(rule, class string, offset int64, evidence ...string) {
	if !v.Budget.find(rule) {
		v.report.FindingsOmitted++
		return
	}
	if len(evidence) > finding.MaxEvidence {
		evidence = evidence[:finding.MaxEvidence]
	}
	for i, e := range evidence {
		evidence[i] = Clip(e, finding.MaxEvidenceBytes)
	}
	v.report.AddFinding(finding.Finding{Rule: rule, Location: v.At(class, offset), Evidence: evidence})
}

// FindingsOmitted counts findings that a format kept back itself.
func (v *Visit) FindingsOmitted(n uint64) { v.report.FindingsOmitted += n }

// ImportsOmitted counts imports that a format kept back itself.
func (v *Visit) ImportsOmitted(n uint64) { v.report.ImportsOmitted += n }

// Import adds an import.
func (v *Visit) Import(i finding.Import) { v.report.AddImport(i) }

// At is a location in this content.
func (v *Visit) At(class string, offset int64) finding.Location {
	return finding.Location{Class: class, Member: v.Member, Offset: offset}
}

// Span is a part of a visit's content that is content itself.
type Span struct {
	// Name is the member's; empty for a part that has none of its own.
	Name  string
	Bytes io.ReaderAt
	Size  int64
	// Start and End are the extent in the visited content. When Direct, the
	// span's bytes are those very bytes; otherwise they are coded.
	Start, End int64
	Direct     bool
}

// Outcome is what became of a span.
type Outcome struct {
	Format string
	// Complete is set when nothing of the span is unread.
	Complete bool
}

// Enter scans a span as content of its own and takes over what was claimed.
func (v *Visit) Enter(ctx context.Context, s Span) (Outcome, error) {
	return v.EnterWith(ctx, s, v.opener.Open)
}

// EnterBy is EnterWith, or Enter where scan is nil.
func (v *Visit) EnterBy(ctx context.Context, s Span, scan func(context.Context, *Visit) error) (Outcome, error) {
	if scan == nil {
		scan = v.opener.Open
	}
	return v.EnterWith(ctx, s, scan)
}

// EnterWith is Enter for a span whose format is given.
func (v *Visit) EnterWith(ctx context.Context, s Span, scan func(context.Context, *Visit) error) (Outcome, error) {
	coded := s.Size
	if s.Direct {
		coded = 0
	}
	if why := v.Budget.descend(v.Depth+1, coded); why != "" {
		v.Unread(s.Start, s.End, why)
		v.Found("archive.limit", "archive", s.Start, string(why))
		return Outcome{Format: scanner.Unknown}, nil
	}
	child := &Visit{
		Bytes: s.Bytes, Size: s.Size, Member: v.Path(s.Name), Depth: v.Depth + 1,
		Budget: v.Budget, report: v.report, opener: v.opener, Classes: v.Classes,
	}
	if err := child.readHead(); err != nil {
		return Outcome{}, err
	}
	if err := scan(ctx, child); err != nil {
		return Outcome{}, err
	}
	account, err := coverage.Account(child.claims, child.Size)
	if err != nil {
		return Outcome{}, fmt.Errorf("scan %s: %w", child.Format, err)
	}
	if s.Name != "" {
		v.addChild(child, s)
	}
	total := coverage.Sum(account)
	if s.Direct {
		v.takeDirect(account, s.Start)
		for _, w := range child.whole {
			if s.Name != "" { // else it is hidden from who reads by the format
				v.Whole(s.Start+w[0], s.Start+w[1])
			}
		}
	} else {
		v.takeCoded(account, s)
	}
	return Outcome{Format: child.Format, Complete: total.Complete}, nil
}

// Path names a member of this content.
func (v *Visit) Path(name string) string {
	if name == "" {
		return v.Member
	}
	name = strings.ToValidUTF8(name, "\uFFFD")
	if v.Member != "" {
		name = v.Member + "!" + name
	}
	return Clip(name, finding.MaxMemberBytes)
}

func (v *Visit) addChild(child *Visit, s Span) {
	if v.Depth > 0 || len(v.report.Children) >= scanner.MaxChildren {
		// The extent of a member's member is not one of the artifact's.
		return
	}
	v.report.Children = append(v.report.Children, scanner.Child{
		Member: child.Member, Format: child.Format, Size: s.Size, Start: s.Start, End: s.End,
	})
}

// Whole notes that [start, end) is an archive that refers to nothing outside of
// it, and has been scanned.
func (v *Visit) Whole(start, end int64) { v.whole = append(v.whole, [2]int64{start, end}) }

// InWhole reports whether the offset is in an archive that Whole was called for,
// of this content or of a member that is in it as it is.
func (v *Visit) InWhole(at int64) bool {
	for _, w := range v.whole {
		if w[0] <= at && at < w[1] {
			return true
		}
	}
	return false
}

func (v *Visit) takeDirect(account []coverage.Range, start int64) {
	for _, r := range account {
		r.Start += start
		r.End += start
		v.claims = append(v.claims, r)
	}
}

// takeCoded maps a coded span's account on its extent: one gap in the content
// makes the whole extent unread, since its bytes cannot be told apart.
func (v *Visit) takeCoded(account []coverage.Range, s Span) {
	kind := predicate.Inert
	if len(account) == 0 {
		kind = predicate.Parsed
	}
	for _, r := range account {
		switch r.Kind {
		case predicate.Unread:
			r.Start, r.End = s.Start, s.End
			v.claims = append(v.claims, r)
			return
		case predicate.Parsed:
			kind = predicate.Parsed
		}
	}
	v.claim(kind, s.Start, s.End, "")
}

// Claims are the claims so far, in the content's own offsets.
func (v *Visit) Claims() []coverage.Range { return v.claims }

// Clip cuts s to at most n bytes, between characters.
func Clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
