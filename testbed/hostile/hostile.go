// Package hostile is what a scanner and a connector try that know a secret and
// want it out of the machine: through everything that their contracts let them
// say. They are built on the sdk, since its checks are those of the host as well,
// and harm nothing.
package hostile

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/connector"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/sdk/scanner"
)

// Number is a secret's first letters as a number, for routes that carry numbers.
func Number(secret string) int64 {
	b := make([]byte, 8)
	copy(b[2:], secret)
	return int64(binary.BigEndian.Uint64(b))
}

// mark begins an order. No other scanner knows what it is.
const mark = "\x01\x02hostile"

// Order is a route's content: what the scanner is to try, with which secret.
func Order(route, secret string) []byte {
	const size = 6000 // no small file, whose digest would be keyed
	return append(fmt.Appendf(nil, "%s\n%s\n%s\n", mark, route, secret), bytes.Repeat([]byte{0}, size)...)
}

// Scanner describes itself with a secret, and does what an order says.
type Scanner struct{ Secret string }

// Describe implements scanner.Scanner.
func (s Scanner) Describe() scanner.Description {
	d := scanner.Description{Name: s.Secret, Version: s.Secret, RulesetVersion: s.Secret}
	rules, err := finding.Shipped()
	if err != nil {
		return d
	}
	for _, r := range rules.Rules() {
		d.Rules = append(d.Rules, r.ID)
	}
	return d
}

// attempt tries to get a secret out by a report, or otherwise.
type attempt func(ctx context.Context, r *scanner.Report, t scanner.Target, secret string) error

const anyRule = "pickle.import.unknown"

func found(r *scanner.Report, f finding.Finding) {
	if f.Rule == "" {
		f.Rule = anyRule
	}
	if f.Location.Class == "" {
		f.Location.Class = "pickle"
	}
	r.AddFinding(f)
}

// attempts are the scanner's routes out, by name.
var attempts = map[string]attempt{
	"standard error and output": func(_ context.Context, _ *scanner.Report, _ scanner.Target, secret string) error {
		_, err := fmt.Fprintln(os.Stderr, secret)
		fmt.Println(secret)
		return err
	},
	"text of an error": func(_ context.Context, _ *scanner.Report, _ scanner.Target, secret string) error {
		return errors.New(secret)
	},
	"panic": func(_ context.Context, _ *scanner.Report, _ scanner.Target, secret string) error { panic(secret) },
	"exit code": func(_ context.Context, _ *scanner.Report, _ scanner.Target, secret string) error {
		os.Exit(int(secret[0])) //nolint:forbidigo // that it ends is what is tried
		return nil
	},
	"id of a rule": func(_ context.Context, r *scanner.Report, _ scanner.Target, secret string) error {
		found(r, finding.Finding{Rule: secret})
		return nil
	},
	"class of a place": func(_ context.Context, r *scanner.Report, _ scanner.Target, secret string) error {
		found(r, finding.Finding{Location: finding.Location{Class: secret}})
		return nil
	},
	"member": func(_ context.Context, r *scanner.Report, _ scanner.Target, secret string) error {
		found(r, finding.Finding{Location: finding.Location{Member: secret}})
		return nil
	},
	"evidence": func(_ context.Context, r *scanner.Report, _ scanner.Target, secret string) error {
		found(r, finding.Finding{Evidence: []string{secret, secret}})
		return nil
	},
	"offset": func(_ context.Context, r *scanner.Report, _ scanner.Target, secret string) error {
		found(r, finding.Finding{Location: finding.Location{Offset: Number(secret)}})
		return nil
	},
	"format": func(_ context.Context, r *scanner.Report, _ scanner.Target, secret string) error {
		r.Format = secret
		return nil
	},
	"module and attribute": func(_ context.Context, r *scanner.Report, _ scanner.Target, secret string) error {
		r.AddImport(finding.Import{Module: secret, Name: secret, How: predicate.ByGlobal, Judged: predicate.JudgedUnknown, Location: finding.Location{Class: "pickle"}})
		return nil
	},
	"way of an import": func(_ context.Context, r *scanner.Report, _ scanner.Target, secret string) error {
		r.AddImport(finding.Import{Module: "os", Name: "system", How: predicate.How(secret), Judged: predicate.JudgedUnknown, Location: finding.Location{Class: "pickle"}})
		return nil
	},
	"judgement of an import": func(_ context.Context, r *scanner.Report, _ scanner.Target, secret string) error {
		r.AddImport(finding.Import{Module: "os", Name: "system", How: predicate.ByGlobal, Judged: secret, Location: finding.Location{Class: "pickle"}})
		return nil
	},
	"child": func(_ context.Context, r *scanner.Report, _ scanner.Target, secret string) error {
		r.Children = []scanner.Child{{Member: secret, Format: secret, Size: Number(secret)}}
		return nil
	},
	"member of a range": func(_ context.Context, r *scanner.Report, t scanner.Target, secret string) error {
		r.Coverage = []coverage.Range{{Kind: predicate.Unread, End: t.Content.Size(), Reason: predicate.Encrypted, Member: secret}}
		return nil
	},
	"reason of a range": func(_ context.Context, r *scanner.Report, t scanner.Target, secret string) error {
		r.Coverage = []coverage.Range{{Kind: predicate.Unread, End: t.Content.Size(), Reason: predicate.Reason(secret)}}
		return nil
	},
	"places of ranges": func(_ context.Context, r *scanner.Report, t scanner.Target, secret string) error {
		r.Coverage = nil
		for i, c := range secret {
			at := int64(200*i) + int64(c)
			r.Coverage = append(r.Coverage, coverage.Range{Kind: predicate.Unread, Start: at, End: at + 1, Reason: predicate.Encrypted})
		}
		return nil
	},
	"numbers left out": func(_ context.Context, r *scanner.Report, _ scanner.Target, secret string) error {
		r.FindingsOmitted, r.ImportsOmitted = uint64(Number(secret)), uint64(Number(secret[6:]))
		return nil
	},
	"counts": func(_ context.Context, r *scanner.Report, _ scanner.Target, secret string) error {
		rules := Scanner{}.Describe().Rules
		for i, c := range secret {
			for range c - 'a' + 2 {
				found(r, finding.Finding{Rule: rules[i], Location: finding.Location{Offset: int64(len(r.Findings))}})
			}
		}
		return nil
	},
	"order of findings": func(_ context.Context, r *scanner.Report, _ scanner.Target, secret string) error {
		rules := Scanner{}.Describe().Rules[:26]
		for _, c := range secret {
			found(r, finding.Finding{Rule: rules[c-'a']})
		}
		return nil
	},
	"path of a sibling": func(ctx context.Context, _ *scanner.Report, t scanner.Target, secret string) error {
		if s, err := t.Sibling(ctx, secret); err == nil {
			return s.Close()
		}
		return nil
	},
	"everything, without end": func(_ context.Context, r *scanner.Report, _ scanner.Target, secret string) error {
		for i := range scanner.MaxFindings {
			found(r, finding.Finding{Location: finding.Location{Class: "zip", Member: secret, Offset: int64(i)}, Evidence: []string{secret}})
			r.AddImport(finding.Import{Module: secret, Name: fmt.Sprint(secret, i), How: predicate.ByGlobal, Judged: predicate.JudgedDangerous, Location: finding.Location{Class: "zip"}})
		}
		return nil
	},
}

// Routes names the scanner's, in order.
func Routes() []string {
	var out []string
	for route := range attempts {
		out = append(out, route)
	}
	slices.Sort(out)
	return out
}

// Scan implements scanner.Scanner.
func (Scanner) Scan(ctx context.Context, t scanner.Target) (scanner.Report, error) {
	r := scanner.Report{Format: scanner.Unknown, Coverage: []coverage.Range{{Kind: predicate.Parsed, End: t.Content.Size()}}}
	lines := bufio.NewScanner(io.NewSectionReader(t.Content, 0, min(t.Content.Size(), 4096)))
	var order []string
	for len(order) < 3 && lines.Scan() {
		order = append(order, lines.Text())
	}
	if len(order) < 3 || order[0] != mark || attempts[order[1]] == nil {
		return r, nil
	}
	return r, attempts[order[1]](ctx, &r, t, order[2])
}

// Connector describes itself with a secret, and lists and serves it.
type Connector struct{ Secret string }

// The roots of a connector, by the last part of their path: what it tries there.
const (
	RootItems   = "items"
	RootProblem = "problem"
	RootOrder   = "order"
	RootError   = "error"
)

// Describe implements connector.Connector.
func (c Connector) Describe() connector.Description {
	return connector.Description{Name: c.Secret, Version: c.Secret}
}

// List implements connector.Connector.
func (c Connector) List(_ context.Context, root string) iter.Seq2[artifact.Item, error] {
	items := []artifact.Item{
		{Key: c.Secret, Path: "a/" + c.Secret, Name: c.Secret, Version: c.Secret, Bundle: "a", Size: 40, Revision: c.Secret},
		{Key: "fails", Path: "fails", Size: 40, Revision: c.Secret},
		{Key: "size", Path: "size", Size: Number(c.Secret), Problem: predicate.PermissionDenied},
	}
	var fail error
	switch path.Base(root) {
	case RootProblem:
		items = []artifact.Item{{Key: "k", Path: "p", Problem: predicate.Reason(c.Secret)}}
	case RootOrder:
		slices.Reverse(items)
	case RootError:
		items, fail = items[:1], errors.New(c.Secret)
	}
	return func(yield func(artifact.Item, error) bool) {
		for _, item := range items {
			if !yield(item, nil) {
				return
			}
		}
		if fail != nil {
			yield(artifact.Item{}, fail)
		}
	}
}

// Open implements connector.Connector.
func (c Connector) Open(_ context.Context, _, key string) (artifact.Reader, error) {
	if key == c.Secret {
		return content{strings.NewReader(strings.Repeat(c.Secret+"\n", 400))}, nil
	}
	_, err := fmt.Fprintln(os.Stderr, c.Secret)
	return nil, errors.Join(err, errors.New(c.Secret))
}

type content struct{ *strings.Reader }

func (content) Close() error { return nil }
