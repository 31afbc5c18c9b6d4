package python

// exprKind says what an expression is.
type exprKind uint8

const (
	// exprName is a name, in text. No expression is of the kind before.
	exprName exprKind = iota + 1
	// exprText is a string, exprBytes a bytes literal, exprNumber a number as
	// written; exprWord is None, True, False or "...".
	exprText
	exprBytes
	exprNumber
	exprWord
	// exprFormat is an f-string or strings side by side; its pieces are in list.
	exprFormat
	// exprAttribute is list[0].text; exprIndex is list[0][list[1]].
	exprAttribute
	exprIndex
	exprSlice
	// exprCall calls list[0] with the rest; those with a text are by keyword.
	exprCall
	exprKeyword
	// exprOperator is any operator over list, the operator in text.
	exprOperator
	// exprChoice is list[1] if list[0] else list[2].
	exprChoice
	exprLambda
	exprTuple
	exprList
	exprSet
	// exprDict has keys and values in turn; a key is nil before an unpacked one.
	exprDict
	// exprComprehension has its element(s) in list, and clauses.
	exprComprehension
	// exprStar unpacks list[0], with "*" or "**" in text.
	exprStar
	// exprAwait, exprYield and exprAssign (":=") have what they are about in list.
	exprAwait
	exprYield
	exprAssign
)

// expr is an expression.
type expr struct {
	kind    exprKind
	depth   int16
	at      int32
	text    string
	list    []*expr
	clauses []clause
	fn      *function
}

// clause is "for target in source if conditions".
type clause struct {
	target, source *expr
	conditions     []*expr
}

// function is a def or a lambda.
type function struct {
	name       string
	at         int
	parameters []parameter
	returns    *expr
	body       []*stmt
	value      *expr // a lambda's
}

type parameter struct {
	name       string
	star       bool
	annotation *expr
	initial    *expr
}

// stmtKind says what a statement is.
type stmtKind uint8

const (
	stmtExpr stmtKind = iota
	// stmtAssign assigns the last of list to each of the others; with an operator
	// in text it is an augmented one.
	stmtAssign
	// stmtAnnotated is list[0]: list[1] = list[2], the last may be missing.
	stmtAnnotated
	// stmtImport has names; stmtFrom also a module, in text.
	stmtImport
	stmtFrom
	stmtFunction
	// stmtClass has bases and keywords in list and its body.
	stmtClass
	// stmtIf and stmtWhile have a condition in list[0]; stmtFor a target and a
	// source.
	stmtIf
	stmtWhile
	stmtFor
	// stmtWith has contexts and targets in turn; a target may be nil.
	stmtWith
	// stmtTry has handlers, each a stmtExcept, behind the body.
	stmtTry
	stmtExcept
	stmtMatch
	stmtCase
	stmtReturn
	stmtRaise
	stmtDelete
	stmtAssert
	// stmtExec is Python 2's: exec code in namespaces. stmtPrint as well.
	stmtExec
	stmtPrint
	stmtScope // global, nonlocal
	stmtNone  // pass, break, continue
)

// stmt is a statement.
type stmt struct {
	kind       stmtKind
	at         int
	text       string
	list       []*expr
	names      []imported
	decorators []*expr
	fn         *function
	body, rest []*stmt
	handlers   []*stmt
}

// imported is one name of an import: what it is called there, and here.
type imported struct{ name, as string }
