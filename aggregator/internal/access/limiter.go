package access

import (
	"net/netip"
	"sync"
	"time"
)

// The limit on failed logins. From one place a failure costs failureCost, and
// failures are refused while they add up to more than failureBurst of them; an
// IPv6 network of 64 bits is one place. The table of places is bounded: beyond
// maxPlaces, new ones share one count until others are forgotten.
const (
	failureCost  = 6 * time.Second
	failureBurst = 10
	maxPlaces    = 10_000
)

// limiter counts failures by place, as the moment at which they are paid off.
type limiter struct {
	mu     sync.Mutex
	paid   map[netip.Prefix]time.Time
	others time.Time
}

func newLimiter() *limiter { return &limiter{paid: map[netip.Prefix]time.Time{}} }

func place(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	// It fails for no number of bits that an address has.
	p, _ := a.Prefix(bits)
	return p
}

func (l *limiter) allow(from netip.Addr, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	until, ok := l.paid[place(from)]
	if !ok && len(l.paid) >= maxPlaces {
		until = l.others
	}
	return until.Sub(now) <= (failureBurst-1)*failureCost
}

// fail counts a failure, and reports false when the place is over its limit,
// in which case it is not counted.
func (l *limiter) fail(from netip.Addr, now time.Time) bool {
	if !l.allow(from, now) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	p := place(from)
	if _, ok := l.paid[p]; !ok && len(l.paid) >= maxPlaces {
		l.forget(now)
		if len(l.paid) >= maxPlaces {
			l.others = later(l.others, now).Add(failureCost)
			return true
		}
	}
	l.paid[p] = later(l.paid[p], now).Add(failureCost)
	return true
}

// forget drops what is paid off.
func (l *limiter) forget(now time.Time) {
	for p, until := range l.paid {
		if !until.After(now) {
			delete(l.paid, p)
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
