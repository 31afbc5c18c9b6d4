package kafka

import (
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
)

// The bounds of what is granted at once.
const (
	maxGrants    = 64
	grantTimeout = 30 * time.Second
)

// grants are the logins that wait to be made. A broker writes all of its logins
// and rules anew for each change, so those that are asked for at the same time
// are made by one change.
type grants struct {
	// turn is whoever makes them.
	turn chan struct{}

	mu      sync.Mutex
	waiting []*grant
}

// grant is an agent's login, and what became of it.
type grant struct {
	username     string
	salt, salted []byte
	done         chan struct{}
	err          error // set before done is closed
}

// EnsureAgent lets an agent log in with SCRAM-SHA-256 and write to the statements'
// topic, and nothing else: access rules of that principal beyond these two are
// removed. Called again with another password it replaces the password. After an
// error the login may still be made.
//
// A cluster of several brokers takes a moment to make it known to all of them.
func (a *Admin) EnsureAgent(ctx context.Context, username, password string) error {
	if !usernames.MatchString(username) {
		return fmt.Errorf("ensure agent %q: a username has 1 to 128 letters, digits, dots, dashes and underscores", username)
	}
	if !passwords.MatchString(password) {
		return fmt.Errorf("ensure agent %q: a password has 16 to 256 printable ASCII characters without spaces", username)
	}
	g := &grant{username: username, salt: make([]byte, scramSalt), done: make(chan struct{})}
	if _, err := rand.Read(g.salt); err != nil {
		return fmt.Errorf("ensure agent %q: make salt: %w", username, err)
	}
	var err error
	if g.salted, err = pbkdf2.Key(sha256.New, password, g.salt, scramIterations, sha256.Size); err != nil {
		return fmt.Errorf("ensure agent %q: derive key: %w", username, err)
	}
	if err := a.await(ctx, g); err != nil {
		return fmt.Errorf("ensure agent %q: %w", username, err)
	}
	return nil
}

// await waits until a grant is made, by whoever has the turn.
func (a *Admin) await(ctx context.Context, g *grant) error {
	a.grants.add(g)
	select {
	case <-g.done:
		return g.err
	case <-ctx.Done():
		if a.grants.drop(g) {
			return ctx.Err()
		}
		// It is being made, and must not be made after its caller has gone.
		<-g.done
		return g.err
	case a.grants.turn <- struct{}{}:
	}
	defer func() { <-a.grants.turn }()
	// Others wait for this as well, so it does not end with this caller.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grantTimeout)
	defer cancel()
	for {
		select {
		case <-g.done:
			return g.err
		default:
			a.make(ctx, a.grants.take())
		}
	}
}

func (s *grants) add(g *grant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = append(s.waiting, g)
}

// drop takes back what nobody has begun to make.
func (s *grants) drop(g *grant) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.waiting)
	s.waiting = slices.DeleteFunc(s.waiting, func(w *grant) bool { return w == g })
	return len(s.waiting) < before
}

// take takes the next ones, none of them for the same agent.
func (s *grants) take() []*grant {
	s.mu.Lock()
	defer s.mu.Unlock()
	var batch, rest []*grant
	taken := map[string]bool{}
	for _, g := range s.waiting {
		if len(batch) == maxGrants || taken[g.username] {
			rest = append(rest, g)
			continue
		}
		taken[g.username] = true
		batch = append(batch, g)
	}
	s.waiting = rest
	return batch
}

// make makes a batch's logins, rules first: a login must never be wider than it
// should.
func (a *Admin) make(ctx context.Context, batch []*grant) {
	defer func() {
		for _, g := range batch {
			close(g.done)
		}
	}()
	if err := a.client.reach(ctx); err != nil {
		failed(batch, err)
		return
	}
	a.makeRules(ctx, batch)
	ruled := slices.DeleteFunc(slices.Clone(batch), func(g *grant) bool { return g.err != nil })
	if len(ruled) == 0 {
		return
	}
	req := &kafka.AlterUserScramCredentialsRequest{}
	for _, g := range ruled {
		req.Upsertions = append(req.Upsertions, kafka.UserScramCredentialsUpsertion{
			Name: g.username, Mechanism: kafka.ScramMechanismSha256, Iterations: scramIterations, Salt: g.salt, SaltedPassword: g.salted,
		})
	}
	res, err := a.client.kafka.AlterUserScramCredentials(ctx, req)
	if err != nil {
		failed(ruled, fmt.Errorf("alter credentials: %w", err))
		return
	}
	for _, g := range ruled {
		err := errUnanswered
		if i := slices.IndexFunc(res.Results, func(r kafka.AlterUserScramCredentialsResponseUser) bool { return r.User == g.username }); i >= 0 {
			err = res.Results[i].Error
		}
		if err != nil {
			g.err = fmt.Errorf("alter credentials: %w", err)
		}
	}
}

// errUnanswered says that a broker passed over something that it was asked for.
var errUnanswered = errors.New("the broker's answer leaves it out")

func failed(batch []*grant, err error) {
	for _, g := range batch {
		g.err = err
	}
}

// makeRules lets agents write to the topic and see it, and takes away whatever
// else they may.
func (a *Admin) makeRules(ctx context.Context, batch []*grant) {
	var missing []kafka.ACLEntry
	var of []*grant
	for _, g := range batch {
		rules, err := a.missingRules(ctx, "User:"+g.username)
		if err != nil {
			g.err = err
			continue
		}
		for _, r := range rules {
			missing, of = append(missing, r), append(of, g)
		}
	}
	if len(missing) == 0 {
		return
	}
	res, err := a.client.kafka.CreateACLs(ctx, &kafka.CreateACLsRequest{ACLs: missing})
	for i, g := range of {
		answer := err
		if err == nil && i >= len(res.Errors) {
			answer = errUnanswered
		} else if err == nil {
			answer = res.Errors[i]
		}
		if answer != nil {
			g.err = fmt.Errorf("create access rules: %w", answer)
		}
	}
}

// missingRules takes away the rules that a principal should not have, and
// returns those that it lacks.
func (a *Admin) missingRules(ctx context.Context, principal string) ([]kafka.ACLEntry, error) {
	rule := func(op kafka.ACLOperationType) kafka.ACLEntry {
		return kafka.ACLEntry{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: a.client.cfg.Topic,
			ResourcePatternType: kafka.PatternTypeLiteral, Principal: principal, Host: "*",
			Operation: op, PermissionType: kafka.ACLPermissionTypeAllow,
		}
	}
	want := []kafka.ACLEntry{rule(kafka.ACLOperationTypeWrite), rule(kafka.ACLOperationTypeDescribe)}
	have, err := a.rules(ctx, principal)
	if err != nil {
		return nil, err
	}
	for _, r := range have {
		if slices.Contains(want, r) {
			continue
		}
		if err := a.deleteRules(ctx, exactly(r)); err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(want, func(r kafka.ACLEntry) bool { return slices.Contains(have, r) }), nil
}
