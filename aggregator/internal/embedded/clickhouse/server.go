package clickhouse

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// server answers the ClickHouse HTTP interface: what clickhouse-go needs of
// it, and an error for the rest.
// Source: ClickHouse documentation, "HTTP Interface".
type server struct {
	lib      *library
	dir      string   // where bodies of inserts wait for the engine
	args     []string // for every connection
	limits   limits
	user     string
	password [sha256.Size]byte
	slots    chan struct{}
	log      *slog.Logger
	// insertTime is how long an insert may take; hung is called when one takes
	// longer, and ends the process.
	insertTime time.Duration
	hung       func()
}

// insertTime is far beyond what an insert takes, some milliseconds. The engine has
// been seen not to end one for minutes, while it answered others: a process that
// does not come back is replaced, as one that has crashed, and its client tries
// again.
const insertTime = 30 * time.Second

// die ends this process, with a word on where it hangs.
func (s *server) die() {
	var stacks strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1) // a builder takes everything
	text := stacks.String()
	s.log.Error("an insert does not end: the engine is replaced", slog.Duration("after", s.insertTime), slog.String("stacks", text[:min(len(text), 16<<10)])) //nolint:sloglint // no request goes on
	_ = unix.Kill(os.Getpid(), unix.SIGKILL)
}

// Parameters of a request that are not settings of the query.
var ownParameters = []string{
	"query", "database", "default_format", "client_protocol_version", "query_id", "quota_key",
	"wait_end_of_query", "buffer_size", "user", "password",
}

var settingName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]{0,127}$`)

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/ping" {
		// ClickHouse answers pings without credentials.
		_, err := io.WriteString(w, "Ok.\n")
		s.logWrite(r.Context(), err)
		return
	}
	out := &reply{w: w}
	if err := s.serve(out, r); err != nil {
		s.fail(r.Context(), out, err)
	}
}

func (s *server) serve(w *reply, r *http.Request) error {
	if !s.authorized(r) {
		return exceptionf(codeAuthenticationFail, "%s: Authentication failed: the password is made anew by each aggregator process. (AUTHENTICATION_FAILED)", s.user)
	}
	q, err := s.readQuery(r)
	if err != nil {
		return err
	}
	release, err := s.acquire(r.Context())
	if err != nil {
		return err
	}
	defer release()

	statement, err := parseStatement(q.text)
	if err != nil {
		return err
	}
	q.text = statement.text
	if statement.insert {
		watch := time.AfterFunc(s.insertTime, s.hung)
		defer watch.Stop()
		path, err := s.spool(r, q, statement.data)
		if err != nil {
			return err
		}
		defer s.remove(r.Context(), path)
		q.text = statement.withInfile(path)
	}
	res, err := s.execute(q)
	if err != nil {
		return err
	}
	defer res.close()
	return s.respond(w, q, statement, res)
}

// authorized compares digests, so that neither the length nor the content of
// a guess shows in the time it takes.
func (s *server) authorized(r *http.Request) bool {
	user, password, ok := r.BasicAuth()
	if !ok {
		user, password = r.Header.Get("X-ClickHouse-User"), r.Header.Get("X-ClickHouse-Key")
	}
	digest := sha256.Sum256([]byte(password))
	return subtle.ConstantTimeCompare(digest[:], s.password[:]) == 1 && user == s.user
}

// query is a request, read and checked.
type query struct {
	text     string
	bodyRead bool
	database string
	format   string
	revision uint64
	settings []param
	params   []param
}

func (s *server) readQuery(r *http.Request) (query, error) {
	if r.Method != http.MethodPost && r.Method != http.MethodGet {
		return query{}, exceptionf(codeNotImplemented, "Method %s is not supported: use POST. (NOT_IMPLEMENTED)", r.Method)
	}
	if e := r.Header.Get("Content-Encoding"); e != "" {
		return query{}, exceptionf(codeNotImplemented, "Content-Encoding %s is not supported by the embedded engine: turn compression off. (NOT_IMPLEMENTED)", e)
	}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/") {
		return query{}, exceptionf(codeNotImplemented, "External tables are not supported by the embedded engine. (NOT_IMPLEMENTED)")
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return query{}, exceptionf(codeBadArguments, "Cannot read the request's parameters: %v. (BAD_ARGUMENTS)", err)
	}
	q := query{text: values.Get("query"), database: values.Get("database"), format: values.Get("default_format")}
	if q.format == "" {
		q.format = "TabSeparated"
	}
	if v := values.Get("client_protocol_version"); v != "" {
		if q.revision, err = strconv.ParseUint(v, 10, 32); err != nil {
			return query{}, exceptionf(codeBadArguments, "client_protocol_version is not a number: %q. (BAD_ARGUMENTS)", v)
		}
	}
	if err := q.readSettings(values); err != nil {
		return query{}, err
	}
	if r.Method == http.MethodGet {
		// As a ClickHouse server does: GET changes nothing. Last, since it
		// forbids to change settings.
		q.settings = append(q.settings, param{"readonly", "2"})
	}
	if q.text == "" {
		q.bodyRead = true
		q.text, err = readText(r.Body, s.limits.QueryBytes)
	}
	return q, err
}

func (q *query) readSettings(values url.Values) error {
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	var readonly []param
	for _, name := range names {
		value := values.Get(name)
		switch {
		case strings.HasPrefix(name, "param_"):
			q.params = append(q.params, param{strings.TrimPrefix(name, "param_"), value})
		case slices.Contains(ownParameters, name):
		case (name == "compress" || name == "decompress") && value != "0":
			return exceptionf(codeNotImplemented, "%s is not supported by the embedded engine: turn compression off. (NOT_IMPLEMENTED)", name)
		case name == "compress" || name == "decompress":
		case name == "session_id" || name == "role":
			return exceptionf(codeNotImplemented, "%s is not supported by the embedded engine. (NOT_IMPLEMENTED)", name)
		case name == "async_insert" && value != "0":
			return exceptionf(codeNotImplemented, "async_insert is not supported by the embedded engine: an insert is acknowledged when it is on disk. (NOT_IMPLEMENTED)")
		case !settingName.MatchString(name):
			return exceptionf(codeUnknownSetting, "Unknown setting %q. (UNKNOWN_SETTING)", name)
		case name == "readonly":
			readonly = append(readonly, param{name, value})
		default:
			q.settings = append(q.settings, param{name, value})
		}
	}
	q.settings = append(q.settings, readonly...)
	return nil
}

func readText(body io.Reader, limit int64) (string, error) {
	text, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err != nil {
		return "", exceptionf(codeNetwork, "Cannot read the query: %v. (NETWORK_ERROR)", err)
	}
	if int64(len(text)) > limit {
		return "", exceptionf(codeQueryTooLarge, "The query is longer than %d bytes: send inserted rows as the body and the query as a parameter. (QUERY_IS_TOO_LARGE)", limit)
	}
	return string(text), nil
}

// acquire takes a slot to run a query. It waits a bounded time, so that a
// crowd gets an error a client can retry, and not a pile of goroutines.
func (s *server) acquire(ctx context.Context) (func(), error) {
	timer := time.NewTimer(s.limits.QueueWait)
	defer timer.Stop()
	select {
	case s.slots <- struct{}{}:
		return func() { <-s.slots }, nil
	case <-timer.C:
		return nil, exceptionf(codeTooManyQueries, "Too many simultaneous queries: %d run already and none ended within %s. (TOO_MANY_SIMULTANEOUS_QUERIES)", cap(s.slots), s.limits.QueueWait)
	case <-ctx.Done():
		return nil, exceptionf(codeNetwork, "The client left: %v. (NETWORK_ERROR)", ctx.Err())
	}
}

// spool writes inserted data to a file, the one place from which the engine
// reads it whole: it cuts inline data short. The file is not synced, since
// the engine has read it before the insert is acknowledged.
func (s *server) spool(r *http.Request, q query, inline string) (path string, err error) {
	if inline != "" && !q.bodyRead {
		return "", exceptionf(codeSyntaxError, "Text after the format of an INSERT: send the rows as the body. (SYNTAX_ERROR)")
	}
	file, err := os.CreateTemp(s.dir, "insert-*")
	if err != nil {
		return "", spoolError(err)
	}
	path = file.Name()
	defer func() {
		if closeErr := file.Close(); err == nil && closeErr != nil {
			err = spoolError(closeErr)
		}
		if err != nil {
			s.remove(r.Context(), path)
		}
	}()
	var body io.Reader = strings.NewReader(inline)
	if !q.bodyRead {
		body = r.Body
	}
	n, err := io.Copy(file, io.LimitReader(body, s.limits.BodyBytes+1))
	if pathErr := (*os.PathError)(nil); errors.As(err, &pathErr) {
		return path, spoolError(err)
	}
	if err != nil {
		return path, exceptionf(codeNetwork, "Cannot read the inserted data: %v. (NETWORK_ERROR)", err)
	}
	if n > s.limits.BodyBytes {
		return path, exceptionf(codeQueryTooLarge, "The inserted data is longer than %d bytes: send smaller batches. (QUERY_IS_TOO_LARGE)", s.limits.BodyBytes)
	}
	return path, nil
}

func spoolError(err error) error {
	return exceptionf(codeNotEnoughSpace, "Cannot write the inserted data to the data folder: %v: free some space on its disk. (NOT_ENOUGH_SPACE)", err)
}

func (s *server) remove(ctx context.Context, path string) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.log.WarnContext(ctx, "remove inserted data", slog.Any("error", err))
	}
}

// execute runs the query on a connection of its own, so that settings and
// the database of one request never reach another.
func (s *server) execute(q query) (*result, error) {
	conn, err := s.lib.open(s.args...)
	if err != nil {
		return nil, err
	}
	defer conn.close()
	if q.database != "" && q.database != "default" {
		if err := conn.exec("USE " + quoteIdentifier(q.database)); err != nil {
			return nil, err
		}
	}
	if len(q.settings) > 0 {
		assignments := make([]string, len(q.settings))
		for i, setting := range q.settings {
			assignments[i] = setting.name + " = " + quoteString(setting.value)
		}
		if err := conn.exec("SET " + strings.Join(assignments, ", ")); err != nil {
			return nil, err
		}
	}
	return conn.run(q.text, q.format, q.params)
}

func (s *server) respond(w *reply, q query, st statement, res *result) error {
	format := q.format
	if st.format != "" && !st.insert {
		format = st.format
	}
	w.header().Set("X-ClickHouse-Format", format)
	w.header().Set("X-ClickHouse-Timezone", "UTC")
	if format == "Native" {
		w.header().Set("Content-Type", "application/octet-stream")
		if len(res.data) == 0 {
			w.header().Set("Content-Length", "0")
			return nil
		}
		return reencode(w, res.data, q.revision)
	}
	w.header().Set("Content-Type", "text/plain; charset=UTF-8")
	if _, err := w.Write(res.data); err != nil {
		return fmt.Errorf("send result: %w", err)
	}
	return nil
}

// reply remembers whether a byte has gone out, for then an error cannot have
// a status any more.
type reply struct {
	w     http.ResponseWriter
	wrote bool
}

func (w *reply) header() http.Header { return w.w.Header() }

func (w *reply) Write(p []byte) (int, error) {
	w.wrote = true
	return w.w.Write(p)
}

func (s *server) fail(ctx context.Context, w *reply, err error) {
	exception := (*Exception)(nil)
	if !errors.As(err, &exception) {
		exception = exceptionf(codeUnknown, "%v. (UNKNOWN_EXCEPTION)", err)
	}
	if w.wrote {
		// ClickHouse's frame for an error in the middle of a result.
		_, err := fmt.Fprintf(w, "\r\n__exception__\r\n%s\r\n", exception)
		s.logWrite(ctx, err)
		return
	}
	header := w.header()
	for _, name := range []string{"Content-Length", "X-ClickHouse-Format"} {
		header.Del(name)
	}
	header.Set("Content-Type", "text/plain; charset=UTF-8")
	header.Set("X-ClickHouse-Exception-Code", strconv.Itoa(exception.Code))
	w.w.WriteHeader(exception.status())
	_, err = fmt.Fprintf(w, "%s\n", exception)
	s.logWrite(ctx, err)
}

// logWrite notes a reply that did not arrive: there is nobody left to tell.
func (s *server) logWrite(ctx context.Context, err error) {
	if err != nil {
		s.log.DebugContext(ctx, "client left before the reply", slog.Any("error", err))
	}
}
