import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.ParameterMetaData;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Does with JDBC what it is told: one JSON object a line on stdin, one JSON answer a line on stdout.
 *
 * <p>What is asserted stands in the tests; here is nothing but JDBC. Connections and statements have names
 * that the requests choose. A request is {"do": verb, ...}; an answer {"ok": value} or {"error": {...}}.
 */
public final class Client {
  private static final Gson JSON = new GsonBuilder().serializeNulls().disableHtmlEscaping().create();

  private final Map<String, Object> named = new HashMap<>(); // what requests call by its name
  private final Map<String, Future<Object>> started = new HashMap<>(); // by the name of its statement
  private final Map<String, AtomicLong> counted = new HashMap<>(); // rows, by the name of their statement
  private final Map<String, CountDownLatch> pauses = new HashMap<>(); // of counts, likewise
  private final ExecutorService threads =
      Executors.newCachedThreadPool(
          task -> {
            Thread thread = new Thread(task, "jdbc-work");
            thread.setDaemon(true);
            return thread;
          });

  public static void main(String[] arguments) throws Exception {
    Client client = new Client();
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      JsonObject request = JsonParser.parseString(line).getAsJsonObject();
      String answer = JSON.toJson(answered(() -> client.act(request)));
      System.out.write((answer + "\n").getBytes(StandardCharsets.UTF_8));
      System.out.flush();
    }
  }

  private static Map<String, Object> answered(Callable<Object> work) {
    Map<String, Object> answer = new HashMap<>();
    try {
      answer.put("ok", work.call());
    } catch (Throwable error) {
      answer.put("error", described(error));
    }
    return answer;
  }

  /** The error's class, and its text followed by those of its causes. */
  private static Map<String, Object> described(Throwable error) {
    while (error instanceof InvocationTargetException || error instanceof ExecutionException) {
      error = error.getCause();
    }
    StringBuilder text = new StringBuilder(String.valueOf(error.getMessage()));
    for (Throwable cause = error.getCause(); cause != null; cause = cause.getCause()) {
      text.append("\ncaused by: ").append(cause.getMessage());
    }
    Map<String, Object> found = new TreeMap<>();
    found.put("kind", error.getClass().getSimpleName());
    found.put("message", text.toString());
    found.put("state", error instanceof SQLException sql ? sql.getSQLState() : null);
    return found;
  }

  private Object act(JsonObject request) throws Exception {
    return switch (request.get("do").getAsString()) {
      case "open" -> open(request);
      case "prepare" -> named.put(name(request, "as"), connection(request).prepareStatement(sql(request)));
      case "statement" -> named.put(name(request, "as"), connection(request).createStatement());
      case "call" -> call(request);
      case "query" -> query(request);
      case "columns" -> columns(request);
      case "parameters" -> parameters((PreparedStatement) named.get(name(request, "on")));
      case "count" -> count(request);
      case "every_metadata" -> everyMetadata(connection(request).getMetaData());
      case "start" -> start(request);
      case "start_count" -> startCount(request);
      case "counted" -> counted.get(name(request, "on")).get();
      case "go_on" -> goOn(request);
      case "waits_for_rows" -> waitsForRows();
      case "join" -> started.remove(name(request, "on")).get();
      default -> throw new IllegalArgumentException("no such verb: " + request);
    };
  }

  private Object open(JsonObject request) throws SQLException {
    Connection connection = DriverManager.getConnection(name(request, "url"));
    named.put(name(request, "as"), connection);
    named.put(name(request, "as") + ".metadata", connection.getMetaData());
    return null;
  }

  /** Any method of a named object, by its name and number of arguments; a result set as its rows. */
  private Object call(JsonObject request) throws Exception {
    Object target = named.get(name(request, "on"));
    JsonArray arguments = request.getAsJsonArray("arguments");
    Object result = Values.invoke(target, name(request, "method"), arguments);
    if (result instanceof ResultSet rows) {
      try (rows) {
        return Values.table(rows, getter(request));
      }
    }
    return Values.plain(result);
  }

  private Object query(JsonObject request) throws Exception {
    try (Statement statement = connection(request).createStatement()) {
      if (request.has("timeout_seconds")) {
        statement.setQueryTimeout(request.get("timeout_seconds").getAsInt());
      }
      try (ResultSet rows = statement.executeQuery(sql(request))) {
        return Values.table(rows, getter(request));
      }
    }
  }

  /** What the driver says of the columns of a result, whose rows aren't read. */
  private Object columns(JsonObject request) throws Exception {
    List<Object> found = new ArrayList<>();
    try (Statement statement = connection(request).createStatement();
        ResultSet rows = statement.executeQuery(sql(request))) {
      ResultSetMetaData metadata = rows.getMetaData();
      for (int i = 1; i <= metadata.getColumnCount(); i++) {
        Map<String, Object> column = new TreeMap<>();
        column.put("label", metadata.getColumnLabel(i));
        column.put("name", metadata.getColumnName(i));
        column.put("type", metadata.getColumnTypeName(i));
        column.put("precision", metadata.getPrecision(i));
        column.put("scale", metadata.getScale(i));
        found.add(column);
      }
    }
    return found;
  }

  /** What the driver says of the parameters of a prepared statement. */
  private static Object parameters(PreparedStatement statement) throws SQLException {
    ParameterMetaData metadata = statement.getParameterMetaData();
    List<Object> found = new ArrayList<>();
    for (int i = 1; i <= metadata.getParameterCount(); i++) {
      found.add(metadata.getParameterTypeName(i));
    }
    return found;
  }

  /** How many rows a query gives, and the sum of their first column. */
  private Object count(JsonObject request) throws Exception {
    try (Statement statement = connection(request).createStatement();
        ResultSet rows = statement.executeQuery(sql(request))) {
      long count = 0;
      long sum = 0;
      while (rows.next()) {
        count++;
        sum += rows.getLong(1);
      }
      return List.of(count, sum);
    }
  }

  /** Each method without arguments that asks about the database: its answer or its error, by name. */
  private static Object everyMetadata(DatabaseMetaData metadata) {
    Map<String, Object> found = new LinkedHashMap<>();
    Arrays.stream(DatabaseMetaData.class.getDeclaredMethods())
        .filter(method -> method.getParameterCount() == 0 && method.getReturnType() != Connection.class)
        .sorted(Comparator.comparing(Method::getName))
        .forEach(method -> found.put(method.getName(), answered(() -> asked(metadata, method))));
    return found;
  }

  private static Object asked(DatabaseMetaData metadata, Method method) throws Exception {
    Object result = method.invoke(metadata);
    return result instanceof ResultSet rows ? Values.table(rows, "getObject") : Values.plain(result);
  }

  /** Runs a query in a thread of its own, on a statement made before; `join` waits for its rows. */
  private Object start(JsonObject request) {
    Statement statement = (Statement) named.get(name(request, "on"));
    started.put(
        name(request, "on"),
        threads.submit(
            () -> {
              try (ResultSet rows = statement.executeQuery(sql(request))) {
                return Values.table(rows, getter(request));
              }
            }));
    return null;
  }

  /** As `start`, but counts the rows, and pauses at `pause_at` until `go_on`; `counted` says how many have come. */
  private Object startCount(JsonObject request) {
    String name = name(request, "on");
    Statement statement = (Statement) named.get(name);
    AtomicLong count = new AtomicLong();
    CountDownLatch pause = new CountDownLatch(1);
    long pauseAt = request.get("pause_at").getAsLong();
    counted.put(name, count);
    pauses.put(name, pause);
    Callable<Object> work =
        () -> {
          try (ResultSet rows = statement.executeQuery(sql(request))) {
            while (rows.next()) {
              if (count.incrementAndGet() == pauseAt) {
                pause.await();
              }
            }
            return count.get();
          }
        };
    started.put(name, threads.submit(work));
    return null;
  }

  private Object goOn(JsonObject request) {
    pauses.get(name(request, "on")).countDown();
    return null;
  }

  /** Whether a result has begun, and its reader waits: a cancel before that can leave the stream open. */
  private static boolean waitsForRows() {
    return Thread.getAllStackTraces().values().stream()
        .flatMap(Arrays::stream)
        .anyMatch(at -> at.getClassName().endsWith(".FlightStream") && at.getMethodName().equals("next"));
  }

  private Connection connection(JsonObject request) {
    return (Connection) named.get(name(request, "connection"));
  }

  private static String name(JsonObject request, String key) {
    return request.get(key).getAsString();
  }

  private static String sql(JsonObject request) {
    return request.get("sql").getAsString();
  }

  private static String getter(JsonObject request) {
    JsonElement getter = request.get("getter");
    return getter == null ? "getObject" : getter.getAsString();
  }
}
