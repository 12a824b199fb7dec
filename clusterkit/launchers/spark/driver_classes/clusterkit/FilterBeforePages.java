package clusterkit;

import java.lang.reflect.Field;
import org.apache.spark.SparkConf;
import org.apache.spark.SparkContext;
import org.apache.spark.SparkContext$;
import org.apache.spark.scheduler.SparkListener;
import org.apache.spark.ui.SparkUI;
import scala.Option;

/**
 * Lets a SparkContext attach the pages of its UI only after YARN's filter has been added to them.
 *
 * <p>In client mode the ApplicationMaster sends the filter while the driver's SparkContext starts. Up to Spark 4.3.0 one
 * thread adds it to the pages' handlers while another starts them, and now and then the driver dies of a
 * ConcurrentModificationException. Spark makes its listeners right before it attaches the pages, in the same thread; this
 * one takes its time until the filter is there, and listens to nothing.
 */
public final class FilterBeforePages extends SparkListener {
  private static final long PATIENCE_MS = 5_000;
  private static final long POLL_MS = 5;

  public FilterBeforePages(SparkConf conf) throws InterruptedException {
    SparkUI ui = uiOfStartingContext();
    long deadline = System.currentTimeMillis() + PATIENCE_MS;
    while (ui != null && !hasFilter(ui, conf) && System.currentTimeMillis() < deadline) {
      Thread.sleep(POLL_MS);
    }
  }

  /** Spark holds the UI's lock from before it sets the key until each handler has the filter. */
  private static boolean hasFilter(SparkUI ui, SparkConf conf) {
    synchronized (ui) {
      return conf.get("spark.ui.filters", "").contains("AmIpFilter");
    }
  }

  /** Null where there is no UI, or where Spark keeps the context elsewhere: then nothing is waited for. */
  private static SparkUI uiOfStartingContext() {
    try {
      Field field = SparkContext$.class.getDeclaredField("contextBeingConstructed");
      field.setAccessible(true);
      Option<?> context = (Option<?>) field.get(null);
      Option<SparkUI> ui = context.isDefined() ? ((SparkContext) context.get()).ui() : Option.empty();
      return ui.isDefined() ? ui.get() : null;
    } catch (ReflectiveOperationException absent) {
      return null;
    }
  }
}
