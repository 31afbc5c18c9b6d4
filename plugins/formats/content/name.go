package content

import "strings"

// Leaves reports whether extracting a member of that name would write outside of
// the folder that it is extracted to.
func Leaves(name string) bool {
	n := strings.ReplaceAll(name, `\`, "/")
	if strings.HasPrefix(n, "/") || len(n) > 1 && n[1] == ':' {
		return true
	}
	for part := range strings.SplitSeq(n, "/") {
		if part == ".." {
			return true
		}
	}
	return false
}

// LinkLeaves reports whether a symbolic link of that name leads out of the
// folder that it is extracted to.
func LinkLeaves(name, target string) bool {
	n := strings.ReplaceAll(target, `\`, "/")
	if strings.HasPrefix(n, "/") || len(n) > 1 && n[1] == ':' {
		return true
	}
	depth := strings.Count(strings.Trim(CanonicalName(name), "/"), "/")
	for part := range strings.SplitSeq(n, "/") {
		switch part {
		case "", ".":
		case "..":
			depth--
		default:
			depth++
		}
		if depth < 0 {
			return true
		}
	}
	return false
}

// CanonicalName is the name as the laxest reader sees it: cut at a NUL, without
// empty and dot parts, without regard to case (as the zip reader inside of
// torch looks names up).
func CanonicalName(name string) string {
	name, _, _ = strings.Cut(name, "\x00")
	parts := strings.Split(strings.ReplaceAll(name, `\`, "/"), "/")
	kept := parts[:0]
	for _, p := range parts {
		if p != "" && p != "." {
			kept = append(kept, p)
		}
	}
	return strings.ToLower(strings.Join(kept, "/"))
}
