// Package pickle reads Python pickles of protocols 0 to 5 without executing
// them. Three seams: the walker decodes opcodes and their arguments; the
// resolver runs them on an abstract stack with marks and memo, and lists every
// module and name that loading could resolve; the judgement table says what is
// held of each. The whole stream is read up to its STOP, in bounded memory, and
// what stands before a break is reported as if there were none.
package pickle

import (
	"context"
	"fmt"
	"io"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/finding"

	"github.com/cavra/cavra/plugins/formats/content"
)

// ID is the format's id.
const ID = "pickle"

// Rules are the rules that a pickle can meet.
var rules = []string{
	"format.unsafe.pickle", "pickle.call.unresolved", "pickle.extension", "pickle.import.dangerous",
	"pickle.import.unknown", "pickle.import.unresolved", "pickle.limit", "pickle.malformed",
	"pickle.state.global", "pickle.trailing.data", "pickle.use.unusual",
}

// Rules lists the rules that Scan may name.
func Rules() []string { return append([]string(nil), rules...) }

// Format is pickle as a format of the program.
type Format struct{}

// Identify reports whether the content begins with a pickle.
//
// From protocol 2 on a stream begins with PROTO, which decides when an opcode
// follows. Older streams have no mark of their own, and prose may begin like
// one ("cat\ndog\n" is a GLOBAL), so the content is walked: it is a pickle when
// it names what is dangerous, calls something, or reaches STOP after an
// import or with its last byte. A stream that does none of these runs nothing.
func (Format) Identify(ctx context.Context, v *content.Visit) (bool, error) {
	h := v.Head
	if len(h) == 0 || arguments[h[0]] == argUnknown {
		return false, nil
	}
	if h[0] == opProto {
		if len(h) > 1 && h[1] <= highestProtocol {
			return len(h) == 2 || arguments[h[2]] != argUnknown, nil
		}
	}
	return Plausible(ctx, v, 0)
}

// Plausible reports whether a pickle begins at the offset, by walking it.
func Plausible(ctx context.Context, v *content.Visit, start int64) (bool, error) {
	f, err := try(ctx, v, start)
	return f.calls || f.imports || f.done && f.whole, err
}

// trial is what a walk of bytes that may be no pickle has shown.
type trial struct {
	// imports is set when the stream imports anything and reaches STOP or calls,
	// or when it names what is dangerous.
	imports bool
	calls   bool
	// named is set when the stream names anything, danger when that is dangerous.
	named, danger bool
	// done is set when the stream reaches STOP, whole when that is the last byte.
	done, whole bool
}

// try walks what may be a pickle.
func try(ctx context.Context, v *content.Visit, start int64) (trial, error) {
	return tryBytes(ctx, v, v.Bytes, start, v.Size)
}

// shown is what a run has shown of bytes that may be no pickle.
func (m *machine) shown(done bool) trial {
	t := trial{calls: m.out.Called, named: len(m.out.Imports) > 0, done: done, whole: m.offset() == m.size}
	for i, r := range m.out.Imports {
		if !dottedName(r.Module) || !dottedName(r.Name) {
			continue
		}
		t.danger = t.danger || m.table.Judge(r.Module, r.Name).Judged == predicate.JudgedDangerous
		t.imports = t.imports || t.done || t.calls || t.danger
		if i >= maxShown {
			break
		}
	}
	return t
}

// maxShown bounds the imports that a trial looks at.
const maxShown = 1000

// dottedName reports whether a module or a name is spelt as Python spells them,
// in ASCII. A line of prose or of a program seldom is.
func dottedName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && c != '.' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return s != ""
}

// Imports reports whether the content begins as a pickle that imports anything
// and either reaches its STOP, calls something, or names what is dangerous. It
// is for content that a format says is something else.
//
// Content that begins with PERSID, as a zip archive does, ends there for every
// unpickler without a persistent_load, and torch's take no text. The line feeds
// in an archive make a stream of what follows all the same, so that such content
// has to name what is dangerous.
func Imports(ctx context.Context, v *content.Visit) (bool, error) {
	if len(v.Head) == 0 || arguments[v.Head[0]] == argUnknown {
		return false, nil
	}
	t, err := try(ctx, v, 0)
	if v.Head[0] == opPersID {
		return t.danger, err
	}
	return t.imports, err
}

func limitsOf(b *content.Budget) limits {
	return limits{opcodes: b.OpcodesLeft(), memo: b.Memo, stack: b.Stack}
}

// Scan implements content.Format.
func (Format) Scan(ctx context.Context, v *content.Visit) error {
	_, err := ScanAt(ctx, v, 0)
	return err
}

// ScanAt scans the pickles from start to the end of the content, and reports
// whether the last one ended well and nothing follows it.
func ScanAt(ctx context.Context, v *content.Visit, start int64) (bool, error) {
	table, err := Shipped()
	if err != nil {
		return false, err
	}
	v.Format = ID
	m := newMachine(v.Bytes, start, v.Size, limitsOf(v.Budget), table)
	end, walkErr := m.streams(ctx, v)
	if walkErr == nil {
		walkErr = m.further(ctx, v, end)
	}
	v.Budget.SpendOpcodes(m.out.Opcodes)
	claimParsed(v, start, end, m.skipped)
	report(v, m.out, table, start)
	if walkErr != nil {
		return false, walkErr
	}
	if err := m.nested.enter(ctx, v); err != nil {
		return false, err
	}
	v.Format = ID
	if m.out.Broken != nil {
		v.Unread(end, v.Size, m.out.Broken.Reason)
		return false, nil
	}
	if end < v.Size {
		v.Found("pickle.trailing.data", ID, end)
		v.Unread(end, v.Size, predicate.UnknownFormat)
		return false, nil
	}
	return true, nil
}

// further looks where another loader would go on, and for pickles in what none
// has read.
func (m *machine) further(ctx context.Context, v *content.Visit, end int64) error {
	if err := m.lookAside(ctx, v); err != nil {
		return err
	}
	if end >= v.Size {
		return nil
	}
	return m.hunt(ctx, v, end+1)
}

// maxStreams bounds the pickles in a row.
const maxStreams = 10_000

// streams runs stream after stream, and returns where the pickles end.
func (m *machine) streams(ctx context.Context, v *content.Visit) (int64, error) {
	for {
		ok, err := m.stream(ctx, v.Budget.OpcodesLeft()-m.out.Opcodes)
		if err != nil || !ok {
			return m.at, err
		}
		if m.legacy.stage == afterKeys && !m.storages() {
			return m.offset(), m.stopped()
		}
		end := m.offset()
		if len(m.out.Ends) >= maxStreams && end < v.Size {
			m.out.Broken = &Break{At: end, Reason: predicate.LimitMembers, What: "streams"}
			return end, nil
		}
		more, err := m.another(ctx, v, end)
		if err != nil || !more {
			return end, err
		}
	}
}

// another reports whether one more stream begins at the offset. After a pickle,
// anything that reaches a STOP or names anything is taken for one.
func (m *machine) another(ctx context.Context, v *content.Visit, at int64) (bool, error) {
	if at >= v.Size {
		return false, nil
	}
	head := make([]byte, min(3, v.Size-at))
	if err := content.ReadFull(v.Bytes, head, at); err != nil {
		return false, err
	}
	if arguments[head[0]] == argUnknown {
		return false, nil
	}
	if head[0] == opProto && len(head) == 3 && head[1] <= highestProtocol {
		return arguments[head[2]] != argUnknown, nil
	}
	c := newMachine(v.Bytes, at, v.Size, limits{memo: m.memo.limit, stack: m.maxStack}, m.table)
	c.evaluated, c.later = m.evaluated, true
	c.begin()
	done, err := c.run(ctx, v.Budget.OpcodesLeft()-m.out.Opcodes)
	v.Budget.SpendOpcodes(c.out.Opcodes)
	m.evaluated = c.evaluated
	t := c.shown(done)
	return t.calls || t.named || t.done, err
}

// claimParsed claims [start, end) but for what was skipped in it.
func claimParsed(v *content.Visit, start, end int64, skipped []coverage.Range) {
	for _, s := range skipped {
		if s.Start >= end {
			break
		}
		v.Parsed(start, s.Start)
		v.Inert(s.Start, min(s.End, end))
		start = s.End
	}
	v.Parsed(start, end)
}

// eventRules are the rules that events meet.
var eventRules = map[string]string{
	CallUnresolved: "pickle.call.unresolved", ImportUnresolved: "pickle.import.unresolved",
	Extension: "pickle.extension", StateOfGlobal: "pickle.state.global", Malformed: "pickle.malformed", Limited: "pickle.limit",
}

// report judges a resolution.
func report(v *content.Visit, r *Resolution, t *Table, start int64) {
	quiet := true
	for _, i := range r.Imports {
		j := t.Judge(i.Module, i.Name)
		name := i.Module + "." + i.Name
		if j.Judged == predicate.JudgedUnknown && v.Own(i.Module, i.Name) {
			j.Judged = predicate.JudgedHarmless // what it does is its source's, and judged there
		}
		switch {
		case j.Judged == predicate.JudgedDangerous:
			v.Found("pickle.import.dangerous", ID, i.At, append([]string{name, j.Reason}, i.Trace...)...)
		case j.Judged == predicate.JudgedUnknown:
			v.Found("pickle.import.unknown", ID, i.At, append([]string{name}, i.Trace...)...)
		case i.Misused != "":
			j.Judged = predicate.JudgedUnknown
			v.Found("pickle.use.unusual", ID, i.At, name, i.Misused, "vetted as: "+j.Reason)
		}
		quiet = quiet && j.Judged == predicate.JudgedHarmless
		v.Import(finding.Import{Module: i.Module, Name: i.Name, How: i.How, Judged: j.Judged, Location: v.At(ID, i.At)})
	}
	for _, e := range r.Events {
		evidence := []string{e.What}
		if e.Trace != "" {
			evidence = append(evidence, e.Trace)
		}
		v.Found(eventRules[e.Kind], ID, e.At, evidence...)
		quiet = false
	}
	v.FindingsOmitted(r.EventsOmitted)
	if b := r.Broken; b != nil {
		rule := "pickle.malformed"
		switch b.Reason {
		case predicate.LimitBytes, predicate.LimitTime, predicate.LimitMembers:
			rule = "pickle.limit"
		}
		v.Found(rule, ID, b.At, b.What)
		quiet = false
	}
	if quiet {
		v.Found("format.unsafe.pickle", ID, start)
	}
}

// Resolve runs every stream in the bytes, for those who want the resolution
// alone. It judges and claims nothing.
func Resolve(ctx context.Context, src io.ReaderAt, size int64, l content.Limits) (*Resolution, error) {
	v, err := content.NewVisit(src, size, nil, content.NewBudget(l), nil)
	if err != nil {
		return nil, fmt.Errorf("resolve pickle: %w", err)
	}
	table, err := Shipped()
	if err != nil {
		return nil, fmt.Errorf("resolve pickle: %w", err)
	}
	m := newMachine(src, 0, size, limitsOf(v.Budget), table)
	end, err := m.streams(ctx, v)
	if err == nil {
		err = m.further(ctx, v, end)
	}
	if err != nil {
		return m.out, fmt.Errorf("resolve pickle: %w", err)
	}
	return m.out, nil
}
