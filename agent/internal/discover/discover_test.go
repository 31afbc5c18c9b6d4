package discover

import (
	"context"
	"errors"
	"iter"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
)

type fixed struct {
	items []artifact.Item
	err   error
}

func (f fixed) List(context.Context, string) iter.Seq2[artifact.Item, error] {
	return func(yield func(artifact.Item, error) bool) {
		for _, i := range f.items {
			if !yield(i, nil) {
				return
			}
		}
		if f.err != nil {
			yield(artifact.Item{}, f.err)
		}
	}
}

var three = []artifact.Item{
	{Key: "ka", Path: "m/a", Bundle: "m", Size: 1},
	{Key: "kb", Path: "m/b", Bundle: "m", Size: 2, Problem: predicate.PermissionDenied},
	{Key: "kc", Path: "n", Size: 4},
}

func TestAll(t *testing.T) {
	lost := errors.New("connection lost")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tt := range map[string]struct {
		ctx   context.Context
		from  fixed
		most  int
		items int
		err   error
	}{
		"whole":     {t.Context(), fixed{three, nil}, 0, 3, nil},
		"exactly":   {t.Context(), fixed{three, nil}, 3, 3, nil},
		"too many":  {t.Context(), fixed{three, nil}, 2, 2, ErrTooMany},
		"cut short": {t.Context(), fixed{three, lost}, 0, 3, lost},
		"cancelled": {ended, fixed{three, nil}, 0, 0, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			l := All(tt.ctx, tt.from, "/r", tt.most)
			if len(l.Items) != tt.items || !errors.Is(l.Err, tt.err) {
				t.Errorf("%d items, %v", len(l.Items), l.Err)
			}
		})
	}
	l := All(t.Context(), fixed{three, nil}, "/r", 0)
	if l.Bytes != 7 {
		t.Errorf("%d bytes", l.Bytes)
	}
	for path, want := range map[string]string{"m/a": "ka", "m/b": "", "n": "", "x": ""} {
		if key, ok := l.Locate(path); key != want || ok != (want != "") {
			t.Errorf("%s: %q, %t", path, key, ok)
		}
	}
}

func TestWhatALockedFolderHides(t *testing.T) {
	known := artifact.Item{Path: "closed", Revision: "1-2", Problem: predicate.PermissionDenied}
	for name, tt := range map[string]struct {
		items    []artifact.Item
		err      error
		complete bool
		hides    []string
	}{
		"nothing":           {items: []artifact.Item{{Path: "a"}, known}, complete: true},
		"no folders":        {items: []artifact.Item{{Path: "pipe", Problem: predicate.NotRegular}, {Path: "link", Problem: predicate.NotFound}}, complete: true},
		"what is too deep":  {items: []artifact.Item{{Path: "a/b", Problem: predicate.LimitDepth}}, complete: true},
		"a locked folder":   {items: []artifact.Item{{Path: "a/locked", Problem: predicate.PermissionDenied}}, hides: []string{"a/locked/x", "a/locked/y/z"}},
		"a broken disk":     {items: []artifact.Item{{Path: "a", Problem: predicate.ReadFailed}}, hides: []string{"a/locked/x", "a/locked/y/z", "a/lockedx"}},
		"a broken listing":  {err: errors.New("lost"), hides: []string{"a/locked/x", "a/locked/y/z", "a/lockedx", "b"}},
		"another's folders": {items: []artifact.Item{{Path: "c", Problem: predicate.PermissionDenied}}},
	} {
		l := All(t.Context(), fixed{tt.items, tt.err}, "/r", 0)
		if l.Complete() != tt.complete {
			t.Errorf("%s: complete is %t", name, l.Complete())
		}
		var hides []string
		for _, path := range []string{"a/locked/x", "a/locked/y/z", "a/lockedx", "b"} {
			if l.MayHold(path) {
				hides = append(hides, path)
			}
		}
		if diff := cmp.Diff(tt.hides, hides); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
