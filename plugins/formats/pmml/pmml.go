// Package pmml reads models in the Predictive Model Markup Language, up to version
// 4.4: the whole document, with every element held against the standard's.
// Functions that are neither the standard's nor the document's lead a consumer to
// code of its own, and extensions may hold code.
package pmml

import (
	"context"
	_ "embed"
	"encoding/xml"
	"strings"
	"sync"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/cursor"
	"github.com/cavra/cavra/plugins/formats/markup"
)

// ID is the format's id.
const ID = "pmml"

const (
	ruleFunction  = "pmml.function.unknown"
	ruleExtension = "pmml.extension.code"
	ruleTable     = "pmml.table.external"
)

// Rules lists the rules that Scan may name.
func Rules() []string { return append(markup.Rules(), ruleFunction, ruleExtension, ruleTable) }

// elementsText are the names of the elements in the standard's schema.
//
//go:embed elements.txt
var elementsText string

var elements = sync.OnceValue(func() map[string]bool {
	set := make(map[string]bool)
	for line := range strings.Lines(elementsText) {
		set[strings.TrimSpace(line)] = true
	}
	return set
})

// functions are the standard's built-in ones.
var functions = func() map[string]bool {
	set := make(map[string]bool)
	for name := range strings.FieldsSeq(`+ - * / min max sum avg median product log10 ln sqrt abs exp pow threshold floor ceil round modulo rint expm1
		hypot ln1p sin asin sinh cos acos cosh tan atan tanh isMissing isNotMissing isValid isNotValid equal notEqual lessThan lessOrEqual
		greaterThan greaterOrEqual and or not isIn isNotIn if uppercase lowercase stringLength substring trimBlanks concat replace matches
		formatNumber formatDatetime dateDaysSinceYear dateSecondsSinceYear dateSecondsSinceMidnight normalCDF normalPDF stdNormalCDF
		stdNormalPDF erf normalIDF stdNormalIDF`) {
		set[name] = true
	}
	return set
}()

// Format is PMML as a format of the program.
type Format struct{}

// Identify implements content.Format.
func (Format) Identify(_ context.Context, v *content.Visit) (bool, error) {
	e, ok := markup.Root(v)
	return ok && e.Name.Local == "PMML", nil
}

// Scan implements content.Format.
func (Format) Scan(ctx context.Context, v *content.Visit) error {
	v.Format = ID
	s := &scan{v: v, defined: make(map[string]bool)}
	if err := markup.Walk(ctx, v, s); err != nil {
		return err
	}
	for _, c := range s.called {
		if !s.defined[c.name] {
			v.Found(ruleFunction, ID, c.at, c.name)
		}
	}
	return nil
}

// maxCalls bounds the calls of functions that are not built in.
const maxCalls = 100_000

// call is a function that is not built in.
type call struct {
	name string
	at   int64
}

// scan is one scan of one document.
type scan struct {
	v       *content.Visit
	defined map[string]bool
	called  []call
	// extension and row count the elements of that kind that are open, with what
	// is in them: both may hold elements of any name.
	extension, row int
}

// Start implements markup.Visitor.
func (s *scan) Start(e xml.StartElement, at int64) error {
	name := e.Name.Local
	if s.extension > 0 {
		s.extension++
		s.judgeExtension(e, at)
		s.v.Unread(at, at, predicate.UnsupportedFormat) // what it means is its vendor's
		return nil
	}
	if s.row > 0 {
		s.row++
		return nil
	}
	switch name {
	case "Extension":
		s.extension++
		s.judgeExtension(e, at)
	case "row":
		s.row++
	case "Apply":
		return s.apply(markup.Attr(e, "function"), at)
	case "DefineFunction":
		if len(s.defined) < maxCalls {
			s.defined[markup.Attr(e, "name")] = true
		}
	case "TableLocator":
		s.v.Found(ruleTable, ID, at)
	}
	if !elements()[name] || e.Name.Space != "" && !strings.Contains(e.Name.Space, "dmg.org/PMML") {
		s.v.Unread(at, at, predicate.UnknownFormat)
	}
	return nil
}

func (s *scan) apply(function string, at int64) error {
	if functions[function] {
		return nil
	}
	if len(s.called) >= maxCalls {
		return &cursor.Fault{Rule: "model.limit", What: "too many functions", Why: predicate.LimitMembers, At: at}
	}
	s.called = append(s.called, call{cursor.Clean(function), at})
	return nil
}

// End implements markup.Visitor.
func (s *scan) End(xml.Name) error {
	switch {
	case s.extension > 0:
		s.extension--
	case s.row > 0:
		s.row--
	}
	return nil
}

// Text implements markup.Visitor.
func (s *scan) Text(text []byte, at int64) error {
	if s.extension > 0 {
		s.judgeText(string(text), at)
	}
	return nil
}

func (s *scan) judgeExtension(e xml.StartElement, at int64) {
	for _, a := range e.Attr {
		s.judgeText(a.Value, at)
	}
	if n := strings.ToLower(e.Name.Local); strings.Contains(n, "script") {
		s.v.Found(ruleExtension, ID, at, cursor.Clean(e.Name.Local))
	}
}

// code are words that stand in programs and not in descriptions, in lower case.
var code = []string{
	"java.lang.", "java.io.", "java.net.", "javax.script", "javax.naming", "getruntime", "processbuilder", "class.forname", "groovy.",
	"javascript:", "<script", "eval(", "exec(", "system(", "popen(", "__import__", "subprocess", "import os", "os.system", "function(",
	"function (", "jndi:", "ldap://", "rmi://", "library(", "/bin/sh", "powershell",
}

func (s *scan) judgeText(text string, at int64) {
	text = strings.ToLower(text)
	for _, c := range code {
		if strings.Contains(text, c) {
			s.v.Found(ruleExtension, ID, at, c)
			return
		}
	}
}
