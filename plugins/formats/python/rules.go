package python

// The rules of this package.
const (
	ruleDangerous = "python.call.dangerous"
	ruleUse       = "python.call.use"
	ruleSuspect   = "python.call.suspect"
	ruleDeferred  = "python.call.deferred"
	ruleReference = "python.reference.dangerous"
	ruleObscured  = "python.obfuscated"
	ruleInternals = "python.internals"
	ruleDisguised = "python.name.disguised"
	ruleUnparsed  = "python.unparsed"
)

// Rules lists the rules that Scan may name.
func Rules() []string {
	return []string{ruleDangerous, ruleDeferred, ruleUse, ruleSuspect, ruleReference, ruleObscured, ruleInternals, ruleDisguised, ruleUnparsed}
}

// moment is when a part of a program runs.
type moment uint8

const (
	// atImport is when the file is imported; atUse when what loads it makes and
	// calls what it is for; deferred when something else is called.
	atImport moment = iota
	atUse
	deferred
)

func (m moment) String() string { return [...]string{"at import", "at use", "when called"}[m] }

// ruleFor is the rule that a call of a category meets at a moment, if any.
func ruleFor(c category, when moment) string {
	switch c {
	case categoryCommand:
		return [...]string{ruleDangerous, ruleUse, ruleDeferred}[when]
	case categoryCode, categoryNative, categorySocket:
		return [...]string{ruleDangerous, ruleSuspect, ruleDeferred}[when]
	case categoryNetwork:
		return [...]string{ruleDangerous, ruleDeferred, ""}[when]
	case categoryObjects, categoryFile, categoryFetch, categoryListed:
		return [...]string{ruleSuspect, "", ""}[when]
	}
	return ""
}
