package web

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/cavra/cavra/aggregator/internal/access"
	"github.com/cavra/cavra/aggregator/internal/posture"
	"github.com/cavra/cavra/aggregator/internal/serve"
	"github.com/cavra/cavra/schemas/predicate"
)

// The sizes of the lists.
const (
	pageSize   = 100
	worstCount = 10
	// maxOffset bounds how deep a list can be opened.
	maxOffset = 10_000_000
)

// errQuery says that a value in the address is not one that we give.
var errQuery = errors.New("the query holds a value that is not known")

var (
	verdicts   = []string{"fail", "warn", "error", "unassessed", "pass"}
	severities = []string{"critical", "high", "medium", "low", "info"}
	statuses   = []string{"open", "resolved"}
)

// overviewBody is the body of the page "overview".
type overviewBody struct {
	serve.Posture
	// Fleet are the worst of the agents, where the login may see them.
	Fleet *serve.AgentList
	Worst []serve.Artifact
	// Unattributed counts what named no known key, for an Operator.
	Operator     bool
	Unattributed uint64
	// Ingest is how the log is taken in, for an Operator.
	Ingest *ingestBody
}

// ingestBody is how the log is taken in, summed up.
type ingestBody struct {
	serve.IngestHealth
	Running, Behind, Stopped, Away, Waiting uint64
	// Troubled are the partitions that do not run.
	Troubled []serve.IngestPartition
}

func ingestOf(h serve.IngestHealth) *ingestBody {
	b := &ingestBody{IngestHealth: h}
	for _, p := range h.Partitions {
		b.Waiting += uint64(p.Lag)
		switch p.State {
		case "running":
			b.Running++
			continue
		case "away":
			b.Away++
			continue
		case "stopped":
			b.Stopped++
		default:
			b.Behind++
		}
		b.Troubled = append(b.Troubled, p)
	}
	return b
}

func (s *site) overview(ctx context.Context, p access.Principal, _ *http.Request) (view, error) {
	var b overviewBody
	var err error
	if b.Posture, err = s.cfg.Service.Posture(ctx, p.Tenant); err != nil {
		return view{}, err
	}
	if p.Can(access.AgentsRead) {
		list, err := s.cfg.Service.Agents(ctx, p.Tenant, serve.AgentQuery{Limit: worstCount})
		if err != nil {
			return view{}, err
		}
		b.Fleet = &list
	}
	if b.Operator = serve.Operates(p); b.Operator {
		if b.Unattributed, err = s.cfg.Service.CountUnattributed(ctx, p); err != nil {
			return view{}, err
		}
		health, err := s.cfg.Service.IngestHealth(ctx, p)
		if err != nil {
			return view{}, err
		}
		b.Ingest = ingestOf(health)
	}
	for _, verdict := range verdicts {
		if verdict == string(predicate.Pass) || len(b.Worst) >= worstCount {
			continue
		}
		list, err := s.cfg.Service.Artifacts(ctx, p.Tenant, verdict, "", worstCount-uint32(len(b.Worst)))
		if err != nil {
			return view{}, err
		}
		b.Worst = append(b.Worst, list.Artifacts...)
	}
	return view{Title: "Posture", Nav: "/", Body: b}, nil
}

// artifactsBody is the body of the page "artifacts".
type artifactsBody struct {
	serve.ArtifactList
	Verdict  string
	Filters  []filter
	NextLink string
}

// filter is a link that narrows a list.
type filter struct {
	Label, Link string
	Current     bool
}

func (s *site) artifacts(ctx context.Context, p access.Principal, r *http.Request) (view, error) {
	q := r.URL.Query()
	b := artifactsBody{Verdict: q.Get("verdict")}
	if err := known(b.Verdict, verdicts); err != nil {
		return view{}, err
	}
	var err error
	if b.ArtifactList, err = s.cfg.Service.Artifacts(ctx, p.Tenant, b.Verdict, q.Get("after"), pageSize); err != nil {
		return view{}, err
	}
	b.Filters = filters("/artifacts", "verdict", b.Verdict, nil, verdicts)
	if b.Next != "" {
		b.NextLink = link("/artifacts", url.Values{"verdict": {b.Verdict}, "after": {b.Next}})
	}
	return view{Title: "Artifacts", Nav: "/artifacts", Body: b}, nil
}

// artifactBody is the body of the page "artifact".
type artifactBody struct {
	serve.ArtifactDetail
	// Unread are the ranges that the evidence says were not looked at.
	Unread []predicate.Range
	// Scan is the latest scan statement, if there is one.
	Scan *predicate.Scan
}

func (s *site) artifact(ctx context.Context, p access.Principal, r *http.Request) (view, error) {
	digest, err := digestOf(r)
	if err != nil {
		return view{}, err
	}
	detail, err := s.cfg.Service.Artifact(ctx, p.Tenant, digest)
	if err != nil {
		return view{}, err
	}
	b := artifactBody{ArtifactDetail: detail}
	if detail.Statement != "" {
		st, err := s.cfg.Service.Statement(ctx, p.Tenant, detail.Statement)
		if err != nil && !errors.Is(err, serve.ErrNotFound) {
			return view{}, err
		}
		if err == nil {
			b.Scan = scanOf(st)
		}
	}
	if b.Scan != nil {
		for _, part := range b.Scan.Coverage.Ranges {
			if part.Kind == predicate.Unread {
				b.Unread = append(b.Unread, part)
			}
		}
	}
	return view{Title: "Artifact", Nav: "/artifacts", Body: b}, nil
}

// scanOf opens a scan statement; nil when it is of another type or version.
func scanOf(st serve.Statement) *predicate.Scan {
	parsed, err := predicate.Parse(st.Payload)
	if err != nil {
		// A version that this program does not read: what its rows say is there.
		return nil
	}
	scan, _ := parsed.(*predicate.Scan)
	return scan
}

func (s *site) statement(ctx context.Context, p access.Principal, r *http.Request) (view, error) {
	digest, err := digestOf(r)
	if err != nil {
		return view{}, err
	}
	st, err := s.cfg.Service.Statement(ctx, p.Tenant, digest)
	if err != nil {
		return view{}, err
	}
	b, err := statementOf(st)
	if err != nil {
		return view{}, err
	}
	b.VerifiedAt = s.cfg.Now().UTC()
	return view{Title: "Statement", Nav: "/artifacts", Body: b}, nil
}

// exposuresBody is the body of the page "exposures".
type exposuresBody struct {
	serve.ExposureList
	BySeverity, ByStatus []filter
	NextLink             string
}

func (s *site) exposures(ctx context.Context, p access.Principal, r *http.Request) (view, error) {
	q := r.URL.Query()
	severity, status := q.Get("severity"), q.Get("status")
	offset, err := offsetOf(q)
	if err = errors.Join(err, known(severity, severities), known(status, statuses)); err != nil {
		return view{}, err
	}
	var b exposuresBody
	if b.ExposureList, err = s.cfg.Service.Exposures(ctx, p.Tenant, severity, status, offset, pageSize); err != nil {
		return view{}, err
	}
	b.BySeverity = filters("/exposures", "severity", severity, url.Values{"status": {status}}, severities)
	b.ByStatus = filters("/exposures", "status", status, url.Values{"severity": {severity}}, statuses)
	if b.Next != 0 {
		b.NextLink = link("/exposures", url.Values{"severity": {severity}, "status": {status}, "offset": {strconv.FormatUint(uint64(b.Next), 10)}})
	}
	return view{Title: "Exposures", Nav: "/exposures", Body: b}, nil
}

// agentsBody is the body of the page "agents".
type agentsBody struct {
	serve.AgentList
	Query                serve.AgentQuery
	First, Last          uint64
	ByStatus             []filter
	Troubles             []troubleLink
	AllLink              string
	NextLink, BeforeLink string
	// Odd is what is odd about agents and join tokens.
	Odd serve.AgentEventList
}

// troubleLink leads to the agents with a trouble.
type troubleLink struct {
	serve.TroubleCount
	Link    string
	Current bool
}

func (s *site) agents(ctx context.Context, p access.Principal, r *http.Request) (view, error) {
	q := r.URL.Query()
	offset, err := offsetOf(q)
	query := serve.AgentQuery{Trouble: q.Get("trouble"), Status: q.Get("status"), Search: q.Get("q"), Offset: offset, Limit: pageSize}
	if err = errors.Join(err, known(query.Trouble, words(posture.Troubles())), known(query.Status, words(posture.Statuses()))); err != nil {
		return view{}, err
	}
	b := agentsBody{Query: query}
	if b.AgentList, err = s.cfg.Service.Agents(ctx, p.Tenant, query); err != nil {
		return view{}, err
	}
	b.First, b.Last = uint64(offset)+1, uint64(offset)+uint64(len(b.Agents))
	others := url.Values{"trouble": {query.Trouble}, "q": {query.Search}}
	b.ByStatus = filters("/agents", "status", query.Status, others, words(posture.Statuses()))
	for _, t := range b.Fleet.Troubles {
		to := url.Values{"trouble": {t.Kind}, "status": {query.Status}, "q": {query.Search}}
		b.Troubles = append(b.Troubles, troubleLink{t, link("/agents", to), t.Kind == query.Trouble})
	}
	b.AllLink = link("/agents", url.Values{"status": {query.Status}, "q": {query.Search}})
	at := func(offset uint32) string {
		to := url.Values{"trouble": {query.Trouble}, "status": {query.Status}, "q": {query.Search}}
		if offset > 0 {
			to.Set("offset", strconv.FormatUint(uint64(offset), 10))
		}
		return link("/agents", to)
	}
	if b.Next != 0 {
		b.NextLink = at(b.Next)
	}
	if offset > 0 {
		b.BeforeLink = at(offset - min(offset, pageSize))
	}
	b.Odd, err = s.cfg.Service.AgentEvents(ctx, p, "")
	return view{Title: "Fleet", Nav: "/agents", Body: b}, err
}

func words[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, w := range list {
		out[i] = string(w)
	}
	return out
}

func (s *site) agent(ctx context.Context, p access.Principal, r *http.Request) (view, error) {
	a, err := s.cfg.Service.Agent(ctx, p.Tenant, r.PathValue("id"))
	if err != nil {
		return view{}, err
	}
	events, err := s.cfg.Service.AgentEvents(ctx, p, a.ID)
	return view{Title: "Agent", Nav: "/agents", Body: agentBody{a, events.Events}}, err
}

// agentBody is an agent with what is odd about it.
type agentBody struct {
	serve.Agent
	Events []serve.AgentEvent
}

// quarantineBody is the body of the page "quarantine".
type quarantineBody struct {
	serve.RefusedList
	// Unattributed says that the list is of what names no tenant; Operator,
	// that there is such a list for whoever asks.
	Unattributed, Operator bool
	NextLink               string
}

func (s *site) quarantine(ctx context.Context, p access.Principal, r *http.Request) (view, error) {
	q := r.URL.Query()
	offset, err := offsetOf(q)
	if err = errors.Join(err, known(q.Get("unattributed"), []string{"true"})); err != nil {
		return view{}, err
	}
	b := quarantineBody{Unattributed: q.Get("unattributed") == "true", Operator: serve.Operates(p)}
	next := url.Values{}
	if b.Unattributed {
		next.Set("unattributed", "true")
		b.RefusedList, err = s.cfg.Service.Unattributed(ctx, p, offset, pageSize)
	} else {
		b.RefusedList, err = s.cfg.Service.Quarantine(ctx, p.Tenant, offset, pageSize)
	}
	if err != nil {
		return view{}, err
	}
	if b.Next != 0 {
		next.Set("offset", strconv.FormatUint(uint64(b.Next), 10))
		b.NextLink = link("/quarantine", next)
	}
	return view{Title: "Quarantine", Nav: "/quarantine", Body: b}, nil
}

func digestOf(r *http.Request) (predicate.Digest, error) {
	d := predicate.Digest(r.PathValue("digest"))
	if d.ValidateArtifact() != nil {
		return "", serve.ErrNotFound
	}
	return d, nil
}

func known(word string, words []string) error {
	if word != "" && !slices.Contains(words, word) {
		return errQuery
	}
	return nil
}

func offsetOf(q url.Values) (uint32, error) {
	text := q.Get("offset")
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n > maxOffset {
		return 0, errQuery
	}
	return uint32(n), nil
}

// filters are the links to a list narrowed by each of the words, and not at all.
func filters(path, name, current string, others url.Values, words []string) []filter {
	out := []filter{{"all", link(path, others), current == ""}}
	for _, word := range words {
		q := url.Values{name: {word}}
		for k, v := range others {
			q[k] = v
		}
		out = append(out, filter{word, link(path, q), word == current})
	}
	return out
}

// link is a path with those of the values that are not empty.
func link(path string, q url.Values) string {
	for k, v := range q {
		if len(v) == 0 || v[0] == "" {
			delete(q, k)
		}
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}
