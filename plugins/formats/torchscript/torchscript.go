// Package torchscript reads what torch.jit.save writes: source of a small language
// that looks like Python, which torch compiles when it loads the archive, with
// pickles and storages beside it. The source is read by its grammar to its end, and
// every operator that it names is judged by its exact name; source that torch would
// not compile is a gap.
//
// The classes of the archive's pickles are those that its source defines; they
// are no names of Python.
package torchscript

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/torchop"
)

// ID is the format's id, and the class of its findings.
const ID = "torchscript"

const (
	ruleMalformed = "torchscript.malformed"
	ruleLimit     = "model.limit"
)

// maxSource bounds one source file, in bytes.
const maxSource = 32 << 20

// Rules lists the rules that a scan may name.
func Rules() []string { return append(torchop.Rules(), ruleMalformed, ruleLimit) }

// problem is a finding about a source.
type problem struct {
	rule string
	at   int
	what string
}

// source is what is known of one source file.
type source struct {
	problems []problem
	classes  []string
	bound    map[string]bool
	bare     []problem // calls of names that something must bind
	seen     map[string]bool
	err      error
}

// check reads a source.
func check(text string) (*source, error) {
	s := &source{bound: make(map[string]bool), seen: make(map[string]bool)}
	err := parse(text, s)
	if s.err != nil {
		return s, s.err
	}
	for _, b := range s.bare {
		if !s.bound[b.what] {
			s.found(b.rule, b.at, b.what)
		}
	}
	return s, err
}

func (s *source) found(rule string, at int, what string) {
	if rule == "" || s.seen[rule+what] {
		return
	}
	s.seen[rule+what] = true
	s.problems = append(s.problems, problem{rule, at, what})
}

// operator judges an operator.
func (s *source) operator(at int, space, name string) {
	rule, err := torchop.Judge(space, name)
	if err != nil {
		s.err = err
	}
	s.found(rule, at, space+"::"+name)
}

// path implements listener. Names lead to operators from torch and ops only, and
// neither of them is a value of its own.
func (s *source) path(at int, parts []string, called bool) {
	whole := strings.Join(parts, ".")
	switch first := parts[0]; {
	case first == "torch" && len(parts) > 1:
		s.operator(at, "aten", strings.Join(parts[1:], "."))
	case first == "ops" && len(parts) > 2 && !s.bound["ops"]:
		s.operator(at, parts[1], strings.Join(parts[2:], "."))
	case first == "torch" || first == "ops" && !s.bound["ops"]:
		s.found("torch.op.unknown", at, whole)
	case first == "__torch__" && len(parts) > 4 && parts[1] == "torch" && parts[2] == "classes":
		s.found(torchop.Class(parts[3], parts[4]), at, whole)
	case first == "__torch__" || first == "CONSTANTS":
	case strings.HasPrefix(first, "rpc_") && called:
		s.found(torchop.RuleNetwork, at, whole)
	case len(parts) == 1 && called && !builtins[first]:
		s.bare = append(s.bare, problem{"torch.op.unknown", at, first})
	case len(parts) > 1:
		s.attribute(at, parts[len(parts)-1])
	}
}

// attribute implements listener: an attribute of a tensor may be an operator.
func (s *source) attribute(at int, name string) {
	switch name {
	case "save", "from_file":
		s.operator(at, "aten", name)
	}
}

// python implements listener.
func (s *source) python(at int, name string) { s.found(torchop.RulePython, at, name) }

// defined implements listener.
func (s *source) defined(name string, class bool) {
	s.bound[name] = true
	if class {
		s.classes = append(s.classes, name)
	}
}

// builtins are functions and types that TorchScript's compiler knows by bare names.
var builtins = func() map[string]bool {
	m := make(map[string]bool)
	for _, n := range strings.Fields(`annotate unchecked_cast uninitialized fork awaitable getattr hasattr isinstance issubclass print range len int float bool
		str complex list tuple dict set zip enumerate reversed sorted min max abs all any sum divmod pow round ord chr bin hex oct hash id type slice device
		Tensor List Dict Tuple Optional Union Future Await Final NoneType Any number Device Stream Generator RRef super slice Interface Module NamedTuple Enum Exception`) {
		m[n] = true
	}
	return m
}()

// Scan scans a member that torch would compile, and returns the classes that it
// defines. What is no TorchScript is looked at for what it is as well.
func Scan(ctx context.Context, v *content.Visit) ([]string, error) {
	v.Format = ID
	if v.Size > maxSource || !v.Budget.Hold(v.Size) {
		v.Found(ruleLimit, ID, 0, "a long source")
		v.Unread(0, v.Size, predicate.LimitBytes)
		return nil, nil
	}
	defer v.Budget.Release(v.Size)
	b := make([]byte, v.Size)
	if err := content.ReadFull(v.Bytes, b, 0); err != nil {
		return nil, err
	}
	s, err := check(string(b))
	for _, p := range s.problems {
		v.Found(p.rule, ID, int64(p.at), strings.ToValidUTF8(p.what, "\uFFFD"))
	}
	switch {
	case err == nil:
		v.Parsed(0, v.Size)
		return slices.Clone(s.classes), nil
	case errors.Is(err, errLimit):
		v.Found(ruleLimit, ID, 0, err.Error())
		v.Unread(0, v.Size, predicate.LimitDepth)
	case errors.Is(err, errSource):
		v.Found(ruleMalformed, ID, 0, strings.ToValidUTF8(err.Error(), "\uFFFD"))
		v.Unread(0, v.Size, predicate.Malformed)
	default:
		return nil, err
	}
	_, err = v.Enter(ctx, v.Part(0, v.Size))
	return nil, err
}
