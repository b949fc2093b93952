// Clients of pools of HikariCP with PostgreSQL's JDBC driver: each has a transaction now and then. java runs it from this source.
//
//     java -cp … Pooled.java EVERY_MS PATIENCE_S SQL
//
// Each line of standard input is a pool: how many clients share it, a tab, and a JDBC URL with user and password in it. Standard output has a line for each transaction and for
// each connection that a pool made or closed, with tabs between its fields: pools and clients are counted from 0, times are microseconds since
// 1970, and a transaction without a failure has an empty last field.
//
//     transaction POOL CLIENT BEGAN ENDED committed|unanswered|lost SERVER FAILURE
//     opened POOL AT
//     closed POOL AT
//
// It ends with its standard input, at once.
import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintWriter;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.SQLFeatureNotSupportedException;
import java.sql.Statement;
import java.time.Instant;
import java.util.concurrent.TimeUnit;
import java.util.logging.Logger;
import javax.sql.DataSource;

public class Pooled {
	static int every, patience;
	static String sql;

	static long now() {
		Instant now = Instant.now();
		return TimeUnit.SECONDS.toMicros(now.getEpochSecond()) + now.getNano() / 1000;
	}

	static void say(Object... fields) {
		StringBuilder line = new StringBuilder();
		for (Object f : fields) {
			line.append(line.length() == 0 ? "" : "\t").append(String.valueOf(f).replaceAll("\\s+", " "));
		}
		System.out.println(line);
	}

	public static void main(String[] args) throws Exception {
		every = Integer.parseInt(args[0]);
		patience = Integer.parseInt(args[1]);
		sql = args[2];
		BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
		String line;
		for (int pool = 0; (line = in.readLine()) != null; pool++) {
			String[] given = line.split("\t", 2);
			int clients = Integer.parseInt(given[0]);
			HikariConfig config = new HikariConfig();
			config.setDataSource(new Counting(pool, given[1]));
			config.setMaximumPoolSize(clients);
			config.setAutoCommit(false);
			config.setConnectionTimeout(patience * 1000L);
			// None is closed because it is old or idle.
			config.setMaxLifetime(0);
			config.setIdleTimeout(0);
			// A pool that finds nobody yet goes on trying.
			config.setInitializationFailTimeout(-1);
			HikariDataSource source = new HikariDataSource(config);
			for (int client = 0; client < clients; client++) {
				int ownPool = pool, ownClient = client;
				long after = (long) client * every / clients; // not all in the same instant
				Thread thread = new Thread(() -> work(source, ownPool, ownClient, after));
				thread.setDaemon(true);
				thread.start();
			}
		}
		Runtime.getRuntime().halt(0);
	}

	static void work(DataSource source, int pool, int client, long after) {
		try {
			Thread.sleep(after);
			long due = System.nanoTime();
			while (true) {
				transaction(source, pool, client);
				// Whoever is late begins at once, and then in his old step.
				long step = TimeUnit.MILLISECONDS.toNanos(every);
				long late = System.nanoTime() - due;
				due += Math.max(1, late / step) * step;
				TimeUnit.NANOSECONDS.sleep(Math.max(0, due - System.nanoTime()));
			}
		} catch (InterruptedException nobodyInterrupts) {
			throw new IllegalStateException(nobodyInterrupts);
		}
	}

	static void transaction(DataSource source, int pool, int client) {
		long began = now();
		String fate = "unanswered", server = "", failure = "";
		try (Connection connection = source.getConnection(); Statement statement = connection.createStatement()) {
			// The driver sends BEGIN along with this.
			try (ResultSet row = statement.executeQuery(sql)) {
				fate = "lost";
				row.next();
				server = row.getString(1);
			}
			connection.commit();
			fate = "committed";
		} catch (SQLException failed) {
			// The statement itself is refused: BEGIN was answered, as that a server takes no writes (class 25) is its word about a transaction.
			if (failed.getSQLState() != null && failed.getSQLState().startsWith("25")) {
				fate = "lost";
			}
			if (!fate.equals("committed")) { // it was only given back
				failure = failed.getSQLState() + " " + failed.getMessage();
			}
		}
		say("transaction", pool, client, began, now(), fate, server, failure);
	}

	// Counting makes connections and says when one is closed.
	static class Counting implements DataSource {
		final int pool;
		final String url;

		Counting(int pool, String url) {
			this.pool = pool;
			this.url = url;
		}

		public Connection getConnection() throws SQLException {
			Connection connection = DriverManager.getConnection(url);
			say("opened", pool, now());
			return (Connection) Proxy.newProxyInstance(Pooled.class.getClassLoader(), new Class<?>[] {Connection.class}, (proxy, method, arguments) -> {
				if (method.getName().equals("close") || method.getName().equals("abort")) {
					say("closed", pool, now());
				}
				try {
					return method.invoke(connection, arguments);
				} catch (InvocationTargetException failed) {
					throw failed.getCause();
				}
			});
		}

		public Connection getConnection(String user, String password) throws SQLException {
			return getConnection();
		}

		public PrintWriter getLogWriter() { return null; }

		public void setLogWriter(PrintWriter out) { }

		public void setLoginTimeout(int seconds) { }

		public int getLoginTimeout() { return 0; }

		public Logger getParentLogger() throws SQLFeatureNotSupportedException { throw new SQLFeatureNotSupportedException(); }

		public <T> T unwrap(Class<T> wanted) throws SQLException { throw new SQLException("nothing is wrapped"); }

		public boolean isWrapperFor(Class<?> wanted) { return false; }
	}
}
