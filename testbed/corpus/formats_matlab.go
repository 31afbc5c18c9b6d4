package corpus

import (
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
)

// matElement is an element of a MAT-file; matArray one that is an array, of a
// class and of dimensions 1 by n.
func matElement(kind int, data string) string {
	return le32(kind) + le32(len(data)) + data + zeros((8-len(data)%8)%8)
}

func matArray(class, n int, name string, parts ...string) string {
	return matElement(14, matElement(6, le32(class)+zeros(4))+matElement(5, le32(1)+le32(n))+matElement(1, name)+strings.Join(parts, ""))
}

func matFile(variables ...string) string {
	return "MATLAB 5.0 MAT-file" + strings.Repeat(" ", 97) + zeros(8) + "\x00\x01IM" + strings.Join(variables, "")
}

func matlabFiles() []ModelFile {
	const id, function, object, bad = "matlab", "matlab.function", "matlab.object", "matlab.malformed"
	numbers := func(name string) string { return matArray(6, 2, name, matElement(9, floats(4))) }
	text := func(s string) string { return matArray(4, len(s), "", matElement(16, s)) }
	handle := func(s string) string {
		return matArray(16, 1, "f", matArray(2, 1, "", "\x05\x00\x04\x00\x08\x00\x00\x00", matElement(1, "function"), text(s)))
	}
	opaque := func(system, class string) string {
		return matElement(14, matElement(6, le32(17)+zeros(4))+matElement(1, "x")+matElement(1, system)+matElement(1, class)+numbers(""))
	}
	compressed := func(s string) string { z := zlibOf(s); return le32(15) + le32(len(z)) + z }
	good := numbers("w")
	return []ModelFile{
		set(predicate.Pass, id, "matlab: plain", matFile(good, matArray(4, 2, "t", matElement(16, "hi")))),
		set(predicate.Pass, id, "matlab: compressed", matFile(compressed(good))),
		set(predicate.Pass, id, "matlab: cells and fields", matFile(matArray(1, 2, "c", numbers(""), text("x")), matArray(2, 1, "s", "\x05\x00\x04\x00\x08\x00\x00\x00", matElement(1, "a\x00\x00\x00\x00\x00\x00\x00"), numbers("")))),
		set(predicate.Warn, id, "matlab: a function", matFile(handle("@(x)x+1")), function),
		set(predicate.Fail, id, "matlab: a function that runs a command", matFile(handle("@()system('"+inertWord+"')")), function, "matlab.function.dangerous"),
		set(predicate.Fail, id, "matlab: a function that runs a command, compressed", matFile(compressed(handle("@()feval('"+inertWord+"')"))), function, "matlab.function.dangerous"),
		set(predicate.Warn, id, "matlab: an object", matFile(matArray(3, 1, "o", matElement(1, "inline"), "\x05\x00\x04\x00\x08\x00\x00\x00", matElement(1, "a\x00\x00\x00\x00\x00\x00\x00"), numbers(""))), object),
		gap(set(predicate.Warn, id, "matlab: an object of a class of its own", matFile(opaque("MCOS", "mine")), object)),
		gap(set(predicate.Fail, id, "matlab: an object of Java", matFile(opaque("java", "java.util.HashMap")), "matlab.object.java")),
		set(predicate.Fail, id, "matlab: pickle in a compressed variable", matFile(le32(15)+le32(len(zlibOf(good)+payload()))+zlibOf(good)+payload()), ruleHidden, ruleDangerous),
		gap(set(predicate.Warn, id, "matlab: dimensions that lie", matFile(matArray(6, 9, "w", matElement(9, floats(4)))), bad)),
		gap(set(predicate.Warn, id, "matlab: a length that lies", matFile(le32(14)+le32(1<<30)+good), bad)),
		gap(set(predicate.Warn, id, "matlab: bytes within an array", matFile(matArray(6, 2, "w", matElement(9, floats(4)), strings.Repeat("x", 16))), bad)),
		gap(set(predicate.Warn, id, "matlab: a class of nobody", matFile(matArray(99, 1, "w")), bad)),
	}
}
