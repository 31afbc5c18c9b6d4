package pkcs11

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
)

// maxURI bounds a URI, in bytes.
const maxURI = 4 << 10

// URI names a private key in a token, by RFC 7512.
type URI struct {
	// Token, Serial, Object and ID say which key; at least one of Object and ID
	// is set. ID is bytes.
	Token, Serial, Object string
	ID                    string
	// Module is the path of the library that speaks PKCS #11.
	Module string
	// PINFile is the file that holds the PIN; empty where somebody has to be
	// asked.
	PINFile string
}

// ParseURI reads a URI. The PIN itself is not taken: a URI is on command lines
// and in files that others read.
func ParseURI(s string) (URI, error) {
	u, err := parseURI(s)
	if err != nil {
		return URI{}, fmt.Errorf("parse PKCS #11 URI: %w", err)
	}
	return u, nil
}

func parseURI(s string) (URI, error) {
	var u URI
	rest, ok := strings.CutPrefix(s, "pkcs11:")
	if !ok || len(s) > maxURI {
		return u, errors.New("want pkcs11:token=…;object=…?module-path=…&pin-source=…")
	}
	pathPart, query, _ := strings.Cut(rest, "?")
	seen := map[string]bool{}
	for _, attribute := range strings.Split(pathPart, ";") {
		if err := u.set(attribute, seen, true); err != nil {
			return u, err
		}
	}
	if query != "" {
		for _, attribute := range strings.Split(query, "&") {
			if err := u.set(attribute, seen, false); err != nil {
				return u, err
			}
		}
	}
	switch {
	case u.Object == "" && u.ID == "":
		return u, errors.New("name the key by object=LABEL or id=%01…")
	case !filepath.IsAbs(u.Module):
		return u, errors.New("module-path=…: want the absolute path of the token's library")
	}
	return u, nil
}

// set takes on one attribute; inPath says on which side of the question mark it
// stands.
func (u *URI) set(attribute string, seen map[string]bool, inPath bool) error {
	name, raw, ok := strings.Cut(attribute, "=")
	value, err := url.PathUnescape(raw)
	if !ok || err != nil || value == "" {
		return fmt.Errorf("attribute %q: want name=value, percent-encoded", name)
	}
	if seen[name] {
		return fmt.Errorf("attribute %q stands there twice", name)
	}
	seen[name] = true
	fields := map[string]*string{"token": &u.Token, "serial": &u.Serial, "object": &u.Object, "id": &u.ID}
	if !inPath {
		fields = map[string]*string{"module-path": &u.Module, "pin-source": &u.PINFile}
	}
	switch field := fields[name]; {
	case field != nil:
		*field = value
	case name == "type" && inPath && value == "private":
		return nil
	case name == "pin-value":
		return errors.New("pin-value: put the PIN into a file that only the agent can read, and name it with pin-source=file:/…")
	default:
		// What is not understood may narrow down which key is meant.
		return fmt.Errorf("attribute %q is not known here: want token, serial, object, id, type=private; module-path, pin-source", name)
	}
	if name == "pin-source" {
		u.PINFile = strings.TrimPrefix(value, "file:")
		if !filepath.IsAbs(u.PINFile) {
			return errors.New("pin-source: want file: and an absolute path")
		}
	}
	return nil
}

// String spells the URI in one way: without the PIN's file, since that is no
// part of which key it is.
func (u URI) String() string {
	var parts []string
	for _, a := range []struct{ name, value string }{{"token", u.Token}, {"serial", u.Serial}, {"object", u.Object}, {"id", u.ID}} {
		if a.value != "" {
			parts = append(parts, a.name+"="+escape(a.value))
		}
	}
	return "pkcs11:" + strings.Join(parts, ";") + "?module-path=" + escape(u.Module)
}

// escape encodes all but unreserved characters and slashes (RFC 3986).
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~/", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}
