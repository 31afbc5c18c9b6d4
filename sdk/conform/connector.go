package conform

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"sync"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/connector"
	"github.com/cavra/cavra/sdk/plugin"
)

// Scope is a place for the kit to list.
type Scope struct {
	// Root holds a few small items, some of them with problems if there can be.
	Root string
	// Missing is a root that does not exist.
	Missing string
	// Want are the bytes of the items by path; nil takes what is there.
	Want map[string][]byte
}

// maxItemBytes bounds an item that the kit reads, in bytes.
const maxItemBytes = 16 << 20

// Connector checks that an implementation keeps the connector contract. The
// scope must not change meanwhile. One that keeps connections closes them as an
// io.Closer.
func Connector(t TB, make func() connector.Connector, scope Scope) {
	t.Helper()
	leaks(t, func() {
		k := &connectorKit{t: t, connector: make(), scope: scope}
		before := descriptors()
		k.description()
		items, ok := k.listing()
		if !ok {
			return
		}
		k.wanted(items)
		for _, item := range items {
			k.item(item)
		}
		k.missing()
		k.cancelled()
		k.stopped(items)
		k.concurrent(items)
		if c, ok := k.connector.(io.Closer); ok {
			if err := c.Close(); err != nil {
				reporter{t, "close", "after all"}.errorf("%v", err)
			}
		}
		if after := descriptors(); after > before {
			reporter{t, "descriptors", "after all"}.errorf("%d are open, %d were before", after, before)
		}
	})
}

// descriptors counts those of this process.
func descriptors() int {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(names)
}

type connectorKit struct {
	t         TB
	connector connector.Connector
	scope     Scope
}

func (k *connectorKit) description() {
	k.t.Helper()
	r := reporter{k.t, "description", "Describe"}
	d := k.connector.Describe()
	for _, id := range []string{d.Name, d.Version} {
		if err := predicate.ValidateID(id); err != nil {
			r.errorf("%v", err)
		}
	}
}

func (k *connectorKit) list(ctx context.Context, root string) ([]artifact.Item, error) {
	var items []artifact.Item
	for item, err := range k.connector.List(ctx, root) {
		if err != nil {
			return items, err
		}
		items = append(items, item)
	}
	return items, nil
}

// listing: items are valid, in order, with keys of their own, and the same
// twice.
func (k *connectorKit) listing() ([]artifact.Item, bool) {
	k.t.Helper()
	r := reporter{k.t, "listing", k.scope.Root}
	items, err := k.list(k.t.Context(), k.scope.Root)
	if err != nil {
		r.errorf("%v", err)
		return nil, false
	}
	keys := map[string]bool{}
	for i, item := range items {
		if err := plugin.ValidateItem(item); err != nil {
			r.errorf("%q: %v", item.Path, err)
			return nil, false
		}
		if i > 0 && item.Path < items[i-1].Path {
			r.errorf("%q comes after %q", item.Path, items[i-1].Path)
			return nil, false
		}
		if keys[item.Key] {
			r.errorf("two items have the key %q", item.Key)
			return nil, false
		}
		keys[item.Key] = true
	}
	again, err := k.list(k.t.Context(), k.scope.Root)
	if err != nil || !reflect.DeepEqual(items, again) {
		r.errorf("a second listing differs (%v):\n%+v\n%+v", err, items, again)
		return nil, false
	}
	return items, true
}

func (k *connectorKit) wanted(items []artifact.Item) {
	k.t.Helper()
	if k.scope.Want == nil {
		return
	}
	r := reporter{k.t, "listing", k.scope.Root}
	got := map[string]bool{}
	for _, item := range items {
		if item.Problem == "" {
			got[item.Path] = true
		}
	}
	for p := range k.scope.Want {
		if !got[p] {
			r.errorf("%q is not listed", p)
		}
	}
}

// item: what is listed as readable can be read, with the listed size, and what
// has a problem cannot be opened.
func (k *connectorKit) item(item artifact.Item) {
	k.t.Helper()
	r := reporter{k.t, "open", item.Path}
	reader, err := k.connector.Open(k.t.Context(), k.scope.Root, item.Key)
	if item.Problem != "" {
		if err == nil {
			r.errorf("it is listed with the problem %s, and opens", item.Problem)
			_ = reader.Close()
		}
		return
	}
	if err != nil {
		r.errorf("%v", err)
		return
	}
	k.read(item, reader)
	if err := reader.Close(); err != nil {
		r.errorf("close: %v", err)
	}
	if n, err := reader.ReadAt(make([]byte, 1), 0); item.Size > 0 && err == nil {
		r.errorf("%d bytes were read after Close", n)
	}
}

// read: ranges agree with the whole, and the end is where Size says.
func (k *connectorKit) read(item artifact.Item, reader artifact.Reader) {
	k.t.Helper()
	r := reporter{k.t, "read", item.Path}
	size := reader.Size()
	if size != item.Size || size > maxItemBytes {
		r.errorf("%d bytes, listed with %d, at most %d in this kit", size, item.Size, maxItemBytes)
		return
	}
	whole := make([]byte, size)
	if n, err := reader.ReadAt(whole, 0); int64(n) != size || err != nil && err != io.EOF {
		r.errorf("%d of %d bytes: %v", n, size, err)
		return
	}
	if want, ok := k.scope.Want[item.Path]; ok && !bytes.Equal(want, whole) {
		r.errorf("other bytes than are there")
		return
	}
	for _, s := range []span{{0, min(7, size)}, {size / 2, size}, {size / 3, size / 2}, {max(0, size-1), size}} {
		part := make([]byte, s.end-s.start)
		if n, err := reader.ReadAt(part, s.start); n != len(part) || err != nil && err != io.EOF || !bytes.Equal(part, whole[s.start:s.end]) {
			r.errorf("[%d, %d) gives %d bytes that are not those of the whole (%v)", s.start, s.end, n, err)
			return
		}
	}
	if n, err := reader.ReadAt(make([]byte, 2), max(0, size-1)); int64(n) != min(1, size) || err != io.EOF {
		r.errorf("a read over the end gives %d bytes and %v, want io.EOF", n, err)
	}
	if n, err := reader.ReadAt(make([]byte, 1), size+10); n != 0 || err != io.EOF {
		r.errorf("a read past the end gives %d bytes and %v, want io.EOF", n, err)
	}
	if n, err := reader.ReadAt(make([]byte, 1), -1); n != 0 || err == nil || err == io.EOF {
		r.errorf("a read before the start gives %d bytes and %v", n, err)
	}
}

// missing: what is not there is an error that says so.
func (k *connectorKit) missing() {
	k.t.Helper()
	r := reporter{k.t, "missing", k.scope.Missing}
	items, err := k.list(k.t.Context(), k.scope.Missing)
	if err == nil || len(items) > 0 {
		r.errorf("%d items and %v, want none and an error", len(items), err)
	}
	for _, key := range []string{"no-such-key", "../no-such-key", strings.Repeat("x", 5000)} {
		reader, err := k.connector.Open(k.t.Context(), k.scope.Root, key)
		if err == nil {
			r.errorf("the key %.40q opens", key)
			_ = reader.Close()
		}
		if reason := connector.ReasonOf(err); err != nil && len(key) < 255 && reason != predicate.NotFound {
			r.errorf("the key %.40q: %s, want %s: %v", key, reason, predicate.NotFound, err)
		}
	}
}

// cancelled: a listing that is cut short does not look whole.
func (k *connectorKit) cancelled() {
	k.t.Helper()
	ctx, cancel := context.WithCancel(k.t.Context())
	cancel()
	if items, err := k.list(ctx, k.scope.Root); err == nil {
		reporter{k.t, "cancel", k.scope.Root}.errorf("%d items and no error under a context that had ended before", len(items))
	}
}

// stopped: a consumer that wants no more gets no more.
func (k *connectorKit) stopped(items []artifact.Item) {
	k.t.Helper()
	r := reporter{k.t, "stop", k.scope.Root}
	defer func() {
		if p := recover(); p != nil {
			r.errorf("the listing goes on after its consumer has stopped: %v", p)
		}
	}()
	for n := range min(3, len(items)) {
		i := 0
		for range k.connector.List(k.t.Context(), k.scope.Root) {
			if i++; i > n {
				break
			}
		}
	}
}

// concurrent: several users at once get what each gets alone.
func (k *connectorKit) concurrent(items []artifact.Item) {
	k.t.Helper()
	r := reporter{k.t, "concurrent", k.scope.Root}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			got, err := k.list(k.t.Context(), k.scope.Root)
			if err != nil || !reflect.DeepEqual(got, items) {
				r.errorf("another listing than alone: %v", err)
			}
			for _, item := range items {
				if item.Problem != "" {
					continue
				}
				if err := k.sum(item); err != nil {
					r.errorf("%q: %v", item.Path, err)
				}
			}
		})
	}
	wg.Wait()
}

// sum opens and reads an item to its end.
func (k *connectorKit) sum(item artifact.Item) error {
	reader, err := k.connector.Open(k.t.Context(), k.scope.Root, item.Key)
	if err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, io.NewSectionReader(reader, 0, reader.Size()))
	if err == nil && n != item.Size {
		err = fmt.Errorf("%d bytes of %d", n, item.Size)
	}
	if cerr := reader.Close(); err == nil {
		err = cerr
	}
	return err
}
