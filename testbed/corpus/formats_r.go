package corpus

import (
	"math"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
)

// Objects as R serializes them, in the external representation.
const rNil, rUnbound, rGlobal = "\x00\x00\x00\xfe", "\x00\x00\x00\xfc", "\x00\x00\x00\xfd"

func rStream(object string) string {
	return "X\n" + be32(3) + be32(0x40202) + be32(0x30500) + be32(5) + "UTF-8" + object
}

func rChars(s string) string  { return be32(0x40009) + be32(len(s)) + s }
func rSymbol(s string) string { return be32(1) + rChars(s) }
func rText(s string) string   { return be32(16) + be32(1) + rChars(s) }

func rReals(n ...float64) string {
	s := be32(14) + be32(len(n))
	for _, x := range n {
		s += be64(int(math.Float64bits(x)))
	}
	return s
}

// rPairs is a list of pairs, or a call, without tags.
func rPairs(kind int, parts ...string) string {
	var s strings.Builder
	for i, p := range parts {
		if i > 0 {
			kind = 2
		}
		s.WriteString(be32(kind) + p)
	}
	return s.String() + rNil
}

func rBinding(flags int, name, value string) string {
	return be32(flags|2|1<<10) + rSymbol(name) + value
}

// rPromise is one that was not evaluated.
func rPromise(expression string) string { return be32(5|1<<10) + rGlobal + rUnbound + expression }

func rEnvironment(frame string) string { return be32(4) + be32(0) + rGlobal + frame + rNil + rNil }

func rClosure(body string) string { return be32(3|1<<10) + rGlobal + rNil + body }

func rFiles() []ModelFile {
	const id, call, promise, code, pkg, hook, bad = "rdata", "r.call.dangerous", "r.promise", "r.code", "r.package.unknown", "r.hook", "r.malformed"
	system := rPairs(6, rSymbol("system"), rText(inertWord))
	namespace := func(name string) string { return be32(249) + be32(0) + be32(2) + rChars(name) + rChars("1.0") }
	list := func(parts ...string) string { return be32(19) + be32(len(parts)) + strings.Join(parts, "") }
	altrep := func(pkg, class string) string {
		return be32(238) + rPairs(2, rSymbol(class), rSymbol(pkg), be32(13)+be32(1)+be32(13)) + rReals(3, 1, 1) + rNil
	}
	workspace := func(frame string) string { return "RDX3\n" + rStream(frame+rNil) }
	honest := list(rReals(1, 2), rText("lm"), rPairs(6, rSymbol("lm"), rPairs(6, rSymbol("~"), rSymbol("y"), rSymbol("x"))), altrep("base", "compact_intseq"), namespace("stats"))
	return []ModelFile{
		set(predicate.Pass, id, "r: a list", rStream(honest)),
		set(predicate.Pass, "gzip", "r: a list, compressed", gzipOf(rStream(honest))),
		set(predicate.Pass, id, "r: text", "A\n3\n262658\n197888\n5\nUTF-8\n14\n3\n1\nNA\n2.5\n"),
		set(predicate.Pass, id, "r: a workspace", workspace(rBinding(0, "model", honest))),
		set(predicate.Pass, id, "r: a function", rStream(rClosure(rPairs(6, rSymbol("+"), rSymbol("x"), rReals(1)))), code),
		set(predicate.Pass, id, "r: a promise of a variable", rStream(rEnvironment(rBinding(0, "x", rPromise(rPairs(6, rSymbol("stop"))))+rNil)), code),
		set(predicate.Pass, id, "r: a pointer", rStream(be32(22)+rNil+rNil), "r.pointer"),
		set(predicate.Fail, id, "r: a promise", rStream(rPromise(rPairs(6, rSymbol("stop")))), promise),
		set(predicate.Fail, id, "r: a promise that runs a command", rStream(rPromise(system)), promise, call),
		set(predicate.Fail, "gzip", "r: a promise, compressed", gzipOf(rStream(list(rPromise(system)))), promise, call),
		set(predicate.Fail, id, "r: a promise in a workspace", workspace(rBinding(0, "model", rPromise(system))), promise, call),
		set(predicate.Fail, id, "r: a promise of a variable that runs a command", rStream(rEnvironment(rBinding(0, "x", rPromise(system))+rNil)), call, code),
		set(predicate.Fail, id, "r: a function that runs a command", rStream(rClosure(system)), call, code),
		set(predicate.Fail, id, "r: a command by its package", rStream(rPairs(6, rPairs(6, rSymbol("::"), rSymbol("base"), rSymbol("pipe")), rText(inertWord))), call),
		set(predicate.Fail, id, "r: a command by its name", rStream(rPairs(6, rSymbol("do.call"), rText("system"), rNil)), call),
		set(predicate.Fail, id, "r: a command by a reference", rStream(list(rSymbol("system"), rPairs(6, be32(1<<8|255), rText(inertWord)))), call),
		set(predicate.Fail, id, "r: the workspace's first function", workspace(rBinding(0, ".First", rClosure(rNil))), hook, code),
		set(predicate.Warn, id, "r: a binding that is computed", rStream(rEnvironment(rBinding(1<<27, "x", rClosure(rNil))+rNil)), "r.binding.active", code),
		set(predicate.Warn, id, "r: a package of nobody", rStream(list(namespace("neverheard"))), pkg),
		set(predicate.Fail, id, "r: a file that is mapped", rStream(altrep("base", "mmap_integer")), "r.altrep.file"),
		set(predicate.Warn, id, "r: a representation of a package", rStream(altrep("neverheard", "x")), "r.altrep.unknown"),
		gap(set(predicate.Error, id, "r: bytecode", rStream(be32(21)+be32(0)+be32(13)+be32(2)+be32(8)+be32(1)+be32(0)), code)),
		gap(set(predicate.Fail, id, "r: bytecode that runs a command", rStream(be32(21)+be32(0)+be32(13)+be32(1)+be32(8)+be32(1)+be32(1)+rSymbol("system")), call, code)),
		set(predicate.Fail, id, "r: pickle behind", rStream(rNil)+payload(), ruleHidden, ruleDangerous),
		gap(set(predicate.Warn, id, "r: a length that lies", rStream(be32(14)+be32(1<<30)), bad)),
		gap(set(predicate.Warn, id, "r: a reference to nothing", rStream(be32(9<<8|255)), bad)),
		gap(set(predicate.Warn, id, "r: a type of nobody", rStream(be32(99)), bad)),
		gap(set(predicate.Warn, id, "r: nested too deep", rStream(strings.Repeat(be32(19)+be32(1), 5000)), "model.limit")),
	}
}
