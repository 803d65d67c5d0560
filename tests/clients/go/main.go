// The Arrow Flight SQL client and database/sql driver of arrow-go, driven line by line: one JSON object a
// line on stdin, one JSON answer a line on stdout. What is asserted stands in the tests. A request is
// {"do": verb, ...}; an answer {"ok": value} or {"error": {"message": text}}.
package main

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"time"

	_ "github.com/apache/arrow-go/v18/arrow/flight/flightsql/driver"
)

// Request holds the fields of all verbs.
type Request struct {
	Do         string
	As         string // the name that the new object gets
	On         string // the name of the object to act on
	URL        string
	SQL        string
	Arguments  []json.RawMessage
	TimeoutMs  int
	Catalog    *string
	Schema     *string
	Table      *string
	TableTypes []string
	Codes      []uint32
	DataType   *int32
	Headers    map[string]string
}

// session runs SQL: a *sql.DB, or a *sql.Tx.
type session interface {
	QueryContext(ctx context.Context, query string, arguments ...any) (*sql.Rows, error)
	ExecContext(ctx context.Context, query string, arguments ...any) (sql.Result, error)
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}

// running is a query in a goroutine of its own.
type running struct {
	cancel context.CancelFunc
	answer chan any
}

// client keeps what requests call by its name.
type client struct {
	databases    map[string]*sql.DB
	transactions map[string]*sql.Tx
	statements   map[string]*sql.Stmt
	queries      map[string]running
	raw          map[string]*raw
}

func main() {
	c := &client{map[string]*sql.DB{}, map[string]*sql.Tx{}, map[string]*sql.Stmt{}, map[string]running{}, map[string]*raw{}}
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := json.NewEncoder(os.Stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var request Request
		if err := json.Unmarshal(line, &request); err != nil {
			panic(err)
		}
		if err := out.Encode(answer(c.act(request))); err != nil {
			panic(err)
		}
	}
}

func answer(value any, err error) map[string]any {
	if err != nil {
		return map[string]any{"error": map[string]any{"kind": fmt.Sprintf("%T", err), "message": err.Error()}}
	}
	return map[string]any{"ok": value}
}

func (c *client) act(r Request) (any, error) {
	ctx := context.Background()
	if r.TimeoutMs > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(r.TimeoutMs)*time.Millisecond)
		defer cancel()
	}
	switch r.Do {
	case "open":
		db, err := sql.Open("flightsql", r.URL)
		if err != nil {
			return nil, err
		}
		c.databases[r.As] = db
		return nil, db.PingContext(ctx)
	case "close":
		return nil, c.databases[r.On].Close()
	case "begin":
		tx, err := c.databases[r.On].BeginTx(ctx, nil)
		c.transactions[r.As] = tx
		return nil, err
	case "commit":
		return nil, c.transactions[r.On].Commit()
	case "rollback":
		return nil, c.transactions[r.On].Rollback()
	case "prepare":
		statement, err := c.session(r.On).PrepareContext(ctx, r.SQL)
		c.statements[r.As] = statement
		return nil, err
	case "close_statement":
		return nil, c.statements[r.On].Close()
	case "query", "exec", "count":
		return c.run(ctx, r)
	case "start":
		return nil, c.start(r)
	case "cancel":
		c.queries[r.On].cancel()
		return nil, nil
	case "join":
		return <-c.queries[r.On].answer, nil
	}
	return c.actRaw(ctx, r)
}

func (c *client) session(name string) session {
	if tx, ok := c.transactions[name]; ok {
		return tx
	}
	return c.databases[name]
}

// run queries or executes: SQL on a database or transaction, or a prepared statement.
func (c *client) run(ctx context.Context, r Request) (any, error) {
	arguments, err := values(r.Arguments)
	if err != nil {
		return nil, err
	}
	statement, isPrepared := c.statements[r.On]
	if r.Do == "exec" {
		var result sql.Result
		if isPrepared {
			result, err = statement.ExecContext(ctx, arguments...)
		} else {
			result, err = c.session(r.On).ExecContext(ctx, r.SQL, arguments...)
		}
		if err != nil {
			return nil, err
		}
		return result.RowsAffected()
	}
	var rows *sql.Rows
	if isPrepared {
		rows, err = statement.QueryContext(ctx, arguments...)
	} else {
		rows, err = c.session(r.On).QueryContext(ctx, r.SQL, arguments...)
	}
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	if r.Do == "count" {
		return count(rows)
	}
	return table(rows)
}

func (c *client) start(r Request) error {
	ctx, cancel := context.WithCancel(context.Background())
	query := running{cancel, make(chan any, 1)}
	c.queries[r.As] = query
	r.Do = "query"
	go func() {
		query.answer <- answer(c.run(ctx, r))
	}()
	return nil
}

// values makes arguments of JSON: whole numbers int64, other ones float64.
func values(arguments []json.RawMessage) ([]any, error) {
	found := make([]any, len(arguments))
	for i, argument := range arguments {
		var whole int64
		if json.Unmarshal(argument, &whole) == nil && string(argument) != "null" {
			found[i] = whole
		} else if err := json.Unmarshal(argument, &found[i]); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// count is how many rows there are, and the sum of the first of their columns.
func count(rows *sql.Rows) (any, error) {
	var number, sum, value int64
	for rows.Next() {
		if err := rows.Scan(&value); err != nil {
			return nil, err
		}
		number++
		sum += value
	}
	return []int64{number, sum}, rows.Err()
}

func table(rows *sql.Rows) (any, error) {
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	found := [][]any{}
	for rows.Next() {
		row := make([]any, len(columns))
		places := make([]any, len(columns))
		for i := range row {
			places[i] = &row[i]
		}
		if err := rows.Scan(places...); err != nil {
			return nil, err
		}
		for i, value := range row {
			row[i] = plain(value)
		}
		found = append(found, row)
	}
	return map[string]any{"columns": columns, "rows": found}, rows.Err()
}

// plain is what JSON has no way of its own for, as text: bytes as hex digits, the rest in Go's own words.
func plain(value any) any {
	switch value := value.(type) {
	case nil, bool, string, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float32, float64:
		return value
	case []byte:
		return hex.EncodeToString(value)
	case time.Time:
		return value.UTC().Format(time.RFC3339Nano)
	case fmt.Stringer:
		return value.String()
	}
	return fmt.Sprint(value)
}
