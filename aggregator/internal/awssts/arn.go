package awssts

import (
	"fmt"
	"regexp"
	"strings"
)

// ARN is the name of a caller at AWS: a user, a role's session, or a federated
// user.
type ARN struct {
	Partition, Account string
	// Kind is "user", "assumed-role" or "federated-user".
	Kind string
	// Role is of a role's session, and Name the user's, with its path, or the
	// session's.
	Role, Name string
}

const word = `[A-Za-z0-9+=,.@_-]{1,64}`

var (
	session   = regexp.MustCompile(`^arn:(aws[a-z-]{0,16}):sts::([0-9]{12}):assumed-role/(` + word + `)/(` + word + `)$`)
	federated = regexp.MustCompile(`^arn:(aws[a-z-]{0,16}):sts::([0-9]{12}):federated-user/(` + word + `)$`)
	user      = regexp.MustCompile(`^arn:(aws[a-z-]{0,16}):(?:iam|sts)::([0-9]{12}):user/((?:` + word + `/){0,8}` + word + `)$`)
)

// ParseARN reads a caller's name. What is of no known kind is an error.
func ParseARN(s string) (ARN, error) {
	if m := session.FindStringSubmatch(s); m != nil {
		return ARN{Partition: m[1], Account: m[2], Kind: "assumed-role", Role: m[3], Name: m[4]}, nil
	}
	if m := federated.FindStringSubmatch(s); m != nil {
		return ARN{Partition: m[1], Account: m[2], Kind: "federated-user", Name: m[3]}, nil
	}
	if m := user.FindStringSubmatch(s); m != nil {
		return ARN{Partition: m[1], Account: m[2], Kind: "user", Name: m[3]}, nil
	}
	return ARN{}, fmt.Errorf("the name of no user and no session: %.100q", s)
}

// Pattern is which callers a rule lets in: one name, exactly, or all sessions of
// one role.
type Pattern struct {
	exact string
	// role is everything before the session's name, with the slash.
	role string
}

// ParsePattern reads a pattern: an ARN, or that of a role's sessions with * for
// the session's name. A * stands nowhere else.
func ParsePattern(s string) (Pattern, error) {
	if role, ok := strings.CutSuffix(s, "/*"); ok {
		if _, err := ParseARN(role + "/x"); err != nil || !strings.Contains(role, ":assumed-role/") {
			return Pattern{}, fmt.Errorf("%q: want arn:aws:sts::ACCOUNT:assumed-role/ROLE/* for all sessions of a role", s)
		}
		return Pattern{role: role + "/"}, nil
	}
	if _, err := ParseARN(s); err != nil {
		return Pattern{}, fmt.Errorf("%q: want an ARN of AWS STS or IAM, with * for the name of a role's session and nowhere else", s)
	}
	return Pattern{exact: s}, nil
}

// Account is the account that a pattern is of.
func (p Pattern) Account() string { return strings.Split(p.exact+p.role, ":")[4] }

// Matches reports whether a caller's name, which was parsed from s, is one of the
// pattern's.
func (p Pattern) Matches(s string) bool {
	if _, err := ParseARN(s); err != nil {
		return false
	}
	if p.role == "" {
		return s == p.exact
	}
	name, ok := strings.CutPrefix(s, p.role)
	return ok && !strings.Contains(name, "/")
}

// Expand puts a caller's account, role and name into a template: {account},
// {role}, {name}.
func (a ARN) Expand(template string) string {
	return strings.NewReplacer("{account}", a.Account, "{role}", a.Role, "{name}", a.Name).Replace(template)
}
