// Package reach decides which places of the network a connector may reach, and
// connects to them in its stead: exact names and ports, and no address inside the
// network of the machine that nobody has named.
package reach

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The bounds.
const (
	// MaxEntries bounds a List.
	MaxEntries = 256
	// MaxAddress bounds a host with its port, in bytes.
	MaxAddress = 253 + len(":65535")
	// maxAnswers bounds the addresses of one name that are looked at.
	maxAnswers = 16
	// Timeout is how long connecting may take, with the name's resolution.
	Timeout = 10 * time.Second
)

// List is what may be reached. The zero value is nothing.
type List struct {
	// places are hosts or addresses with their ports, as normalised.
	places map[string]bool
	// networks are those inside of which a named host may be.
	networks []netip.Prefix
}

// Parse reads a list of entries. Each is a host and a port, as in
// "registry.example.com:443"; an address and a port, as in "10.1.2.3:443"; or a
// network that is not the Internet's, as in "10.1.0.0/16", inside of which the
// listed hosts may be: it allows no place by itself.
func Parse(entries []string) (List, error) {
	l := List{places: make(map[string]bool)}
	if len(entries) > MaxEntries {
		return List{}, fmt.Errorf("%d entries, at most %d", len(entries), MaxEntries)
	}
	for _, entry := range entries {
		if strings.Contains(entry, "/") {
			network, err := parseNetwork(entry)
			if err != nil {
				return List{}, err
			}
			l.networks = append(l.networks, network)
			continue
		}
		host, port, err := split(entry)
		if err != nil {
			return List{}, fmt.Errorf("%q: %w: want host:port, or a network that a host of the list may be in", entry, err)
		}
		l.places[join(host, port)] = true
	}
	return l, nil
}

// Len is the number of places.
func (l List) Len() int { return len(l.places) }

func parseNetwork(entry string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(entry)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q: want a network, as 10.1.0.0/16", entry)
	}
	if p.Masked() != p {
		return netip.Prefix{}, fmt.Errorf("%q: the network is %s", entry, p.Masked())
	}
	for _, s := range special {
		if s.network.Bits() <= p.Bits() && s.network.Contains(p.Addr()) {
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("%q: addresses of the Internet need no network: name hosts with their ports", entry)
}

func join(host string, port uint16) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// split takes a host and a port apart, normalised: a name in small letters without
// the root's dot, an address in its one spelling.
func split(address string) (string, uint16, error) {
	if len(address) > MaxAddress+1 { // the dot
		return "", 0, fmt.Errorf("longer than %d bytes", MaxAddress)
	}
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, errors.New("no port")
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 || strconv.FormatUint(port, 10) != text {
		return "", 0, errors.New("no port between 1 and 65535")
	}
	if a, err := netip.ParseAddr(host); err == nil {
		if a.Zone() != "" {
			return "", 0, errors.New("an address with a zone")
		}
		return a.Unmap().String(), uint16(port), nil
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if !isName(host) {
		return "", 0, errors.New("no name of a host")
	}
	return host, uint16(port), nil
}

// isName reports whether s names a host. What resolvers take for an address in
// another spelling, such as 127.1 or 0x7f000001, does not.
func isName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if c != '-' && c != '_' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
				return false
			}
		}
	}
	last := labels[len(labels)-1]
	return last[0] < '0' || last[0] > '9'
}

// special are the networks that the Internet does not reach, and those by which one
// of them may be reached. A name that resolves into one was bent, as a rule.
var special = []struct {
	network netip.Prefix
	what    string
}{
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local, where clouds keep their metadata"},
	{netip.MustParsePrefix("168.63.129.16/32"), "a cloud's metadata"},
	{netip.MustParsePrefix("127.0.0.0/8"), "this machine"},
	{netip.MustParsePrefix("10.0.0.0/8"), "a private network"},
	{netip.MustParsePrefix("172.16.0.0/12"), "a private network"},
	{netip.MustParsePrefix("192.168.0.0/16"), "a private network"},
	{netip.MustParsePrefix("100.64.0.0/10"), "a provider's network"},
	{netip.MustParsePrefix("0.0.0.0/8"), "this machine"},
	{netip.MustParsePrefix("192.0.0.0/24"), "reserved"},
	{netip.MustParsePrefix("198.18.0.0/15"), "reserved"},
	{netip.MustParsePrefix("224.0.0.0/4"), "many receivers"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},
	{netip.MustParsePrefix("::1/128"), "this machine"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("fec0::/10"), "a private network"},
	{netip.MustParsePrefix("fc00::/7"), "a private network"},
	{netip.MustParsePrefix("ff00::/8"), "many receivers"},
	{netip.MustParsePrefix("::/96"), "reserved"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "a translated address"},
	{netip.MustParsePrefix("2002::/16"), "a translated address"},
	{netip.MustParsePrefix("2001::/32"), "a translated address"},
}

// translated is where IPv4 is reached from networks of IPv6 alone.
var translated = netip.MustParsePrefix("64:ff9b::/96")

// isSpecial says what is special about an address, and nothing when it is the
// Internet's.
func isSpecial(a netip.Addr) string {
	a = a.Unmap()
	if translated.Contains(a) {
		b := a.As16()
		return isSpecial(netip.AddrFrom4([4]byte(b[12:])))
	}
	for _, s := range special {
		if s.network.Contains(a) {
			return s.what
		}
	}
	return ""
}

// permits says why a name that is listed with this port must not lead to an
// address, if it must not.
func (l List) permits(a netip.Addr, port uint16) string {
	what := isSpecial(a)
	if what == "" || l.places[join(a.String(), port)] || slices.ContainsFunc(l.networks, func(n netip.Prefix) bool { return n.Contains(a) }) {
		return ""
	}
	return what
}

// RefusedError says that a place may not be reached.
type RefusedError struct{ Address, Why string }

func (e *RefusedError) Error() string { return e.Address + " may not be reached: " + e.Why }

// Dialer connects to the places of a list.
type Dialer struct {
	List List
	// Timeout bounds one attempt; Timeout when 0.
	Timeout time.Duration
	// Lookup resolves a name; nil asks as the machine does.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
}

// Check refuses what is not listed. It asks nobody: a name that is not listed is
// not looked up, since the question alone would tell.
func (d Dialer) Check(address string) error {
	_, _, err := d.check(address)
	return err
}

func (d Dialer) check(address string) (string, uint16, error) {
	host, port, err := split(address)
	if err != nil {
		return "", 0, &RefusedError{strconv.QuoteToASCII(address[:min(len(address), MaxAddress)]), err.Error()}
	}
	if !d.List.places[join(host, port)] {
		return "", 0, &RefusedError{join(host, port), "it is not on the list"}
	}
	return host, port, nil
}

// Dial connects to host:port. A name is resolved once, and what is connected to is
// the address that was looked at.
func (d Dialer) Dial(ctx context.Context, address string) (net.Conn, error) {
	host, port, err := d.check(address)
	if err != nil {
		return nil, err
	}
	limit := d.Timeout
	if limit == 0 {
		limit = Timeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no connection within %s: %w", limit, context.DeadlineExceeded))
	defer cancel()
	addrs, err := d.addresses(ctx, host, port)
	if err != nil {
		return nil, err
	}
	var errs []error
	for i, a := range addrs {
		// What is left of the time is shared by the addresses that are.
		deadline, _ := ctx.Deadline()
		now := time.Now()
		one := net.Dialer{Deadline: now.Add(deadline.Sub(now) / time.Duration(len(addrs)-i))}
		c, err := one.DialContext(ctx, "tcp", netip.AddrPortFrom(a, port).String())
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// addresses are those of a host that may be connected to.
func (d Dialer) addresses(ctx context.Context, host string, port uint16) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil // it is on the list itself
	}
	lookup := d.Lookup
	if lookup == nil {
		lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			if strings.Contains(host, ".") {
				host += "." // it is complete: no search in other domains
			}
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	found, err := lookup(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", host, err)
	}
	var out []netip.Addr
	var refused error
	for _, a := range found[:min(len(found), maxAnswers)] {
		a = a.Unmap()
		if why := d.List.permits(a, port); why != "" {
			refused = &RefusedError{join(host, port), fmt.Sprintf("it resolves to %s, %s: name that address, or its network", a, why)}
			continue
		}
		out = append(out, a)
	}
	if len(out) == 0 && refused != nil {
		return nil, refused
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("resolve %s: no address", host)
	}
	return out, nil
}
