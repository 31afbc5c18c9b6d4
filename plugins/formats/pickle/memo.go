package pickle

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
