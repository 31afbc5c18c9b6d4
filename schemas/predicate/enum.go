package predicate

import (
	"fmt"
	"slices"
	"strings"
)

// Severity ranks a rule. Its order is Rank, never the order of its spelling.
type Severity string

// The severities, from least to most.
const (
	Info     Severity = "info"
	Low      Severity = "low"
	Medium   Severity = "medium"
	High     Severity = "high"
	Critical Severity = "critical"
)

var severities = []Severity{Info, Low, Medium, High, Critical}

// Rank is 0 for Info to 4 for Critical, and -1 for anything else.
func (s Severity) Rank() int { return slices.Index(severities, s) }

// Validate reports whether s is one of the severities.
func (s Severity) Validate() error { return oneOf("severity", s, severities) }

// Verdict is what a scan concludes of an artifact.
type Verdict string

// The verdicts. Pass is said only with complete coverage; Error means that
// nothing worse was found but that not all of the artifact was looked at.
const (
	Pass  Verdict = "pass"
	Warn  Verdict = "warn"
	Fail  Verdict = "fail"
	Error Verdict = "error"
)

var verdicts = []Verdict{Pass, Warn, Fail, Error}

// Validate reports whether v is one of the verdicts.
func (v Verdict) Validate() error { return oneOf("verdict", v, verdicts) }

// RangeKind says what was done with a range of an artifact's bytes.
type RangeKind string

// The kinds: Parsed was read and interpreted; Inert is fixed by the format's
// structure as data that nothing interprets (a tensor's payload); Unread was
// not looked at, for a reason.
const (
	Parsed RangeKind = "parsed"
	Inert  RangeKind = "inert"
	Unread RangeKind = "unread"
)

// Reason says why bytes were not looked at, or a reference not read.
type Reason string

// The reasons. They are a closed vocabulary: what an error says in words stays
// on the machine where it happened.
const (
	UnknownFormat          Reason = "unknown_format"
	UnsupportedFormat      Reason = "unsupported_format"
	UnsupportedCompression Reason = "unsupported_compression"
	Encrypted              Reason = "encrypted"
	Malformed              Reason = "malformed"
	Truncated              Reason = "truncated"
	Unclaimed              Reason = "unclaimed"
	LimitBytes             Reason = "limit_bytes"
	LimitDepth             Reason = "limit_depth"
	LimitMembers           Reason = "limit_members"
	LimitRatio             Reason = "limit_ratio"
	LimitTime              Reason = "limit_time"
	ScannerFailed          Reason = "scanner_failed"
	NotRegular             Reason = "not_regular"
	PermissionDenied       Reason = "permission_denied"
	NotFound               Reason = "not_found"
	ReadFailed             Reason = "read_failed"
	Changed                Reason = "changed"
)

// Reasons lists every reason, in the order of their declaration.
func Reasons() []Reason {
	return []Reason{
		UnknownFormat, UnsupportedFormat, UnsupportedCompression, Encrypted, Malformed, Truncated, Unclaimed,
		LimitBytes, LimitDepth, LimitMembers, LimitRatio, LimitTime, ScannerFailed,
		NotRegular, PermissionDenied, NotFound, ReadFailed, Changed,
	}
}

// Validate reports whether r is one of the reasons.
func (r Reason) Validate() error { return oneOf("reason", r, Reasons()) }

// How says how loading would come to a module and name.
type How string

// The ways of resolution: by an opcode that names it, or computed from values
// on the stack.
const (
	ByGlobal      How = "global"
	ByStackGlobal How = "stack_global"
	ByInst        How = "inst"
	ByExtension   How = "extension"
	ByComputed    How = "computed"
)

// Hows lists every way.
func Hows() []How { return slices.Clone(hows) }

var hows = []How{ByGlobal, ByStackGlobal, ByInst, ByExtension, ByComputed}

// Layer is one layer of the sandbox around a plugin.
type Layer string

// The layers that a report may name as in force; an empty list says that none
// was.
const (
	LayerProcess    Layer = "process"
	LayerEmptyEnv   Layer = "empty_environment"
	LayerRlimits    Layer = "rlimits"
	LayerNetwork    Layer = "network_namespace"
	LayerSeccomp    Layer = "seccomp"
	LayerLandlock   Layer = "landlock"
	LayerUID        Layer = "uid"
	LayerNoNewPrivs Layer = "no_new_privs"
)

var layers = []Layer{LayerProcess, LayerEmptyEnv, LayerRlimits, LayerNetwork, LayerSeccomp, LayerLandlock, LayerUID, LayerNoNewPrivs}

// Privacy is the customer's choice of what names may travel plain.
type Privacy string

// The levels: Strict keys every name that is not in the shipped vocabulary;
// Names sends them plain, by the customer's own signed choice; with FullLocal
// no scan and no inventory leaves the machine.
const (
	Strict    Privacy = "strict"
	Names     Privacy = "names"
	FullLocal Privacy = "full-local"
)

var privacies = []Privacy{Strict, Names, FullLocal}

// Validate reports whether p is one of the levels.
func (p Privacy) Validate() error { return oneOf("privacy", p, privacies) }

func oneOf[T ~string](what string, v T, all []T) error {
	if slices.Contains(all, v) {
		return nil
	}
	words := make([]string, len(all))
	for i, a := range all {
		words[i] = string(a)
	}
	return fmt.Errorf("%s %q: want one of %s", what, clip(string(v)), strings.Join(words, ", "))
}
