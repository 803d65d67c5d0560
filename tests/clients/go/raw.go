package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// raw is a connection of the Flight SQL client that the database/sql driver stands on.
type raw struct {
	client *flightsql.Client
	header metadata.MD // of every call
}

func (c *client) actRaw(ctx context.Context, r Request) (any, error) {
	if r.Do == "raw_open" {
		found, err := flightsql.NewClient(r.URL, nil, nil, grpc.WithTransportCredentials(insecure.NewCredentials()))
		c.raw[r.As] = &raw{found, metadata.New(r.Headers)}
		return nil, err
	}
	connection, ok := c.raw[r.On]
	if !ok {
		return nil, fmt.Errorf("no such verb or client: %s on %q", r.Do, r.On)
	}
	return connection.act(metadata.NewOutgoingContext(ctx, connection.header), r)
}

func (c *raw) act(ctx context.Context, r Request) (any, error) {
	switch r.Do {
	case "raw_login":
		ctx, err := c.client.Client.AuthenticateBasicToken(ctx, r.text(0), r.text(1))
		if err == nil {
			c.header, _ = metadata.FromOutgoingContext(ctx)
		}
		return nil, err
	case "raw_update":
		return c.client.ExecuteUpdate(ctx, r.SQL)
	case "raw_schema":
		result, err := c.client.GetExecuteSchema(ctx, r.SQL)
		if err != nil {
			return nil, err
		}
		schema, err := flight.DeserializeSchema(result.GetSchema(), c.client.Alloc)
		return fields(schema), err
	case "raw_close_session":
		result, err := c.client.CloseSession(ctx, &flight.CloseSessionRequest{})
		return result.GetStatus().String(), err
	case "raw_set_session_option":
		return c.setSessionOption(ctx, r.text(0), r.text(1))
	}
	info, err := c.info(ctx, r)
	if err != nil {
		return nil, err
	}
	return c.rows(ctx, info)
}

// text is argument i, which has to be one.
func (r Request) text(i int) string {
	var found string
	if err := json.Unmarshal(r.Arguments[i], &found); err != nil {
		panic(err)
	}
	return found
}

func (c *raw) setSessionOption(ctx context.Context, name, value string) (any, error) {
	option, err := flight.NewSessionOptionValue(value)
	if err != nil {
		return nil, err
	}
	request := &flight.SetSessionOptionsRequest{SessionOptions: map[string]*flight.SessionOptionValue{name: &option}}
	result, err := c.client.SetSessionOptions(ctx, request)
	if err != nil {
		return nil, err
	}
	errors := map[string]string{}
	for name, found := range result.GetErrors() {
		errors[name] = found.GetValue().String()
	}
	return errors, nil
}

func (c *raw) info(ctx context.Context, r Request) (*flight.FlightInfo, error) {
	table := flightsql.TableRef{Catalog: r.Catalog, DBSchema: r.Schema}
	if r.Table != nil {
		table.Table = *r.Table
	}
	switch r.Do {
	case "raw_query":
		return c.client.Execute(ctx, r.SQL)
	case "raw_catalogs":
		return c.client.GetCatalogs(ctx)
	case "raw_schemas":
		return c.client.GetDBSchemas(ctx, &flightsql.GetDBSchemasOpts{Catalog: r.Catalog, DbSchemaFilterPattern: r.Schema})
	case "raw_tables", "raw_tables_and_schemas":
		return c.client.GetTables(ctx, &flightsql.GetTablesOpts{
			Catalog: r.Catalog, DbSchemaFilterPattern: r.Schema, TableNameFilterPattern: r.Table,
			TableTypes: r.TableTypes, IncludeSchema: r.Do == "raw_tables_and_schemas",
		})
	case "raw_table_types":
		return c.client.GetTableTypes(ctx)
	case "raw_primary_keys":
		return c.client.GetPrimaryKeys(ctx, table)
	case "raw_exported_keys":
		return c.client.GetExportedKeys(ctx, table)
	case "raw_imported_keys":
		return c.client.GetImportedKeys(ctx, table)
	case "raw_cross_reference":
		return c.client.GetCrossReference(ctx, table, table)
	case "raw_xdbc_type_info":
		return c.client.GetXdbcTypeInfo(ctx, r.DataType)
	case "raw_sql_info":
		codes := make([]flightsql.SqlInfo, len(r.Codes))
		for i, code := range r.Codes {
			codes[i] = flightsql.SqlInfo(code)
		}
		return c.client.GetSqlInfo(ctx, codes)
	}
	return nil, fmt.Errorf("no such verb: %s", r.Do)
}

// rows are those of all endpoints, each with its values in arrow's JSON; a binary column `table_schema` is opened.
func (c *raw) rows(ctx context.Context, info *flight.FlightInfo) (any, error) {
	found := []map[string]any{}
	for _, endpoint := range info.Endpoint {
		reader, err := c.client.DoGet(ctx, endpoint.GetTicket())
		if err != nil {
			return nil, err
		}
		defer reader.Release()
		for reader.Next() {
			batch := reader.RecordBatch()
			data, err := batch.MarshalJSON()
			if err != nil {
				return nil, err
			}
			var rows []map[string]any
			if err := json.Unmarshal(data, &rows); err != nil {
				return nil, err
			}
			if err := c.openSchemas(batch, rows); err != nil {
				return nil, err
			}
			found = append(found, rows...)
		}
		if err := reader.Err(); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func (c *raw) openSchemas(batch arrow.RecordBatch, rows []map[string]any) error {
	for column, field := range batch.Schema().Fields() {
		if field.Name != "table_schema" {
			continue
		}
		for i, row := range rows {
			values, ok := batch.Column(column).(interface{ Value(int) []byte })
			if !ok {
				return fmt.Errorf("table_schema is %s", field.Type)
			}
			schema, err := flight.DeserializeSchema(values.Value(i), c.client.Alloc)
			if err != nil {
				return err
			}
			row[field.Name] = fields(schema)
		}
	}
	return nil
}

func fields(schema *arrow.Schema) []string {
	if schema == nil {
		return nil
	}
	found := make([]string, schema.NumFields())
	for i, field := range schema.Fields() {
		found[i] = field.Name + ": " + field.Type.String()
	}
	return found
}
