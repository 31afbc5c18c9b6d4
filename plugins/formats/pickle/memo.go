package pickle

import "github.com/cavra/cavra/schemas/predicate"

const (
	pageBits = 12
	pageSize = 1 << pageBits
	// densest is the highest key that lives in a page: what LONG_BINPUT can say.
	densest = 1<<32 - 1
)

// memo maps keys to values in pages, since picklers number densely. It holds at
// most limit entries' worth of memory.
type memo struct {
	pages []*[pageSize]value
	// apart holds pages far beyond the others, so that one high key costs one
	// page and not a table of all below it.
	apart map[int64]*[pageSize]value
	// far holds the keys that only PUT can write.
	far     map[int64]value
	entries int64
	used    int
	limit   int
}

// spread is how far beyond its end the table of pages grows at once.
const spread = 256

func (m *memo) page(n int64) *[pageSize]value {
	if n < int64(len(m.pages)) && m.pages[n] != nil {
		return m.pages[n]
	}
	return m.apart[n]
}

func (m *memo) get(key int64) value {
	if key < 0 || key > densest {
		return m.far[key]
	}
	page := m.page(key >> pageBits)
	if page == nil {
		return kindAbsent
	}
	return page[key&(pageSize-1)]
}

// put reports whether there was room.
func (m *memo) put(key int64, v value) bool {
	if key > densest {
		return m.putFar(key, v)
	}
	page := m.page(key >> pageBits)
	if page == nil {
		if page = m.grow(key >> pageBits); page == nil {
			return false
		}
	}
	slot := &page[key&(pageSize-1)]
	if *slot == kindAbsent {
		m.entries++
	}
	*slot = v
	return true
}

func (m *memo) grow(n int64) *[pageSize]value {
	if (m.used+1)*pageSize > m.limit {
		return nil
	}
	m.used++
	page := new([pageSize]value)
	have := int64(len(m.pages))
	if n >= have+spread {
		if m.apart == nil {
			m.apart = make(map[int64]*[pageSize]value)
		}
		m.apart[n] = page
		return page
	}
	if n >= have {
		m.pages = append(m.pages, make([]*[pageSize]value, n+1-have)...)
	}
	m.pages[n] = page
	return page
}

func (m *memo) putFar(key int64, v value) bool {
	if m.far == nil {
		m.far = make(map[int64]value)
	}
	if _, there := m.far[key]; !there {
		// A map entry costs about as much as eight of a page.
		if (len(m.far)+1)*8 > m.limit {
			return false
		}
		m.entries++
	}
	m.far[key] = v
	return true
}

// memoize puts the top of the stack under a key, which MEMOIZE counts for a new
// Unpickler and for one that loads stream after stream.
func (m *machine) memoize(key, kept int64) bool {
	if !m.has(1) {
		return m.underflow()
	}
	if m.carried.entries > 0 && !m.carried.put(kept, m.other(1)) {
		return m.limit("memo")
	}
	return m.memo.put(key, m.top(1)) || m.limit("memo")
}

func (m *machine) recall(key int64) bool {
	v, kept := m.memo.get(key), m.carried.get(key)
	switch {
	case v == kindAbsent && kept == kindAbsent && !m.later:
		return m.fail(predicate.Malformed, "memo entry is not set")
	case v == kindAbsent && kept == kindAbsent:
		v = unknown // it may be of a stream that is not read from here
	case v == kindAbsent:
		v = kept
	}
	if !m.push(v) {
		return false
	}
	if kept != v && kept != kindAbsent {
		m.otherwiseAt(1, kept)
	}
	return true
}

// other is what one Unpickler that loads stream after stream has n below the top.
func (m *machine) other(n int) value {
	if v, differs := m.otherwise[len(m.stack)-n]; differs {
		return v
	}
	return m.top(n)
}

// otherwiseAt notes v as that.
func (m *machine) otherwiseAt(n int, v value) {
	if m.otherwise == nil {
		m.otherwise = make(map[int]value)
	}
	m.otherwise[len(m.stack)-n] = v
}
