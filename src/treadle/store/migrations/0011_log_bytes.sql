-- How many bytes the bodies of all logs take, so that the oldest can go when they are too many. Kept by the database
-- itself: rows go in many ways, and a sum over all of them would be read again and again.

CREATE TABLE log_bytes (only INTEGER PRIMARY KEY CHECK (only = 1), bytes INTEGER NOT NULL) STRICT;
INSERT INTO log_bytes SELECT 1, COALESCE(SUM(length(body)), 0) FROM log;
CREATE TRIGGER log_added AFTER INSERT ON log BEGIN
    UPDATE log_bytes SET bytes = bytes + length(NEW.body);
END;
CREATE TRIGGER log_removed AFTER DELETE ON log BEGIN
    UPDATE log_bytes SET bytes = bytes - length(OLD.body);
END;
