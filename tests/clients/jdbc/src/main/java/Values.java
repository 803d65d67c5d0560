import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonPrimitive;
import java.lang.reflect.Method;
import java.math.BigDecimal;
import java.sql.Array;
import java.sql.Date;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Time;
import java.sql.Timestamp;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/**
 * JDBC's values to and from JSON: bytes as hex digits, decimals and everything temporal as JDBC's own text
 * of them, so that nothing is rounded on the way.
 */
final class Values {
  private Values() {}

  /** Calls the public method of that name and number of arguments. */
  static Object invoke(Object target, String name, JsonArray arguments) throws Exception {
    for (Method method : target.getClass().getMethods()) {
      if (method.getName().equals(name) && method.getParameterCount() == arguments.size()) {
        Object[] values = new Object[arguments.size()];
        for (int i = 0; i < values.length; i++) {
          values[i] = argument(arguments.get(i), method.getParameterTypes()[i]);
        }
        method.setAccessible(true);
        return method.invoke(target, values);
      }
    }
    throw new IllegalArgumentException(target.getClass() + " has no " + name + "/" + arguments.size());
  }

  private static Object argument(JsonElement json, Class<?> type) {
    if (json.isJsonNull()) {
      return null;
    }
    if (type == String[].class) {
      return json.getAsJsonArray().asList().stream().map(JsonElement::getAsString).toArray(String[]::new);
    }
    JsonPrimitive value = json.getAsJsonPrimitive();
    if (type == int.class) {
      return value.getAsInt();
    }
    return switch (type.getSimpleName()) {
      case "byte" -> value.getAsByte();
      case "short" -> value.getAsShort();
      case "long" -> value.getAsLong();
      case "float" -> value.getAsFloat();
      case "double" -> value.getAsDouble();
      case "boolean" -> value.getAsBoolean();
      case "String" -> value.getAsString();
      case "BigDecimal" -> new BigDecimal(value.getAsString());
      case "Timestamp" -> Timestamp.valueOf(value.getAsString());
      case "Date" -> Date.valueOf(value.getAsString());
      case "Time" -> new Time(java.time.LocalTime.parse(value.getAsString()).toNanoOfDay() / 1_000_000);
      case "byte[]" -> HexFormat.of().parseHex(value.getAsString());
      default -> throw new IllegalArgumentException("arguments of type " + type + " aren't taken");
    };
  }

  /** {"columns": labels, "rows": lists of values}, each value by `getter` of the result set. */
  static Object table(ResultSet rows, String getter) throws Exception {
    List<String> labels = new ArrayList<>();
    for (int i = 1; i <= rows.getMetaData().getColumnCount(); i++) {
      labels.add(rows.getMetaData().getColumnLabel(i));
    }
    Method method = ResultSet.class.getMethod(getter, int.class);
    List<Object> found = new ArrayList<>();
    while (rows.next()) {
      List<Object> row = new ArrayList<>();
      for (int i = 1; i <= labels.size(); i++) {
        row.add(plain(method.invoke(rows, i)));
      }
      found.add(row);
    }
    Map<String, Object> table = new TreeMap<>();
    table.put("columns", labels);
    table.put("rows", found);
    return table;
  }

  static Object plain(Object value) throws SQLException {
    if (value instanceof byte[] bytes) {
      return HexFormat.of().formatHex(bytes);
    }
    if (value instanceof Array array) {
      return plain(array.getArray());
    }
    if (value instanceof Object[] items) {
      return plain(Arrays.asList(items));
    }
    if (value instanceof int[] items) { // the counts of a batch
      return items;
    }
    if (value instanceof List<?> items) {
      List<Object> found = new ArrayList<>();
      for (Object item : items) {
        found.add(plain(item));
      }
      return found;
    }
    if (value instanceof Time time) { // its own text leaves the milliseconds out
      return java.time.LocalTime.ofNanoOfDay(time.getTime() * 1_000_000).toString();
    }
    if (value instanceof Double number && (number.isNaN() || number.isInfinite())) {
      return number.toString();
    }
    boolean isExact = value instanceof Boolean || value instanceof Number && !(value instanceof BigDecimal);
    return value == null || isExact ? value : value.toString();
  }
}
