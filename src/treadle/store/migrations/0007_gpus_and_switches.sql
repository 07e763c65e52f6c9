-- Devices given to containers, when a container told to stop must have ended, and deployments taken away.

ALTER TABLE container ADD COLUMN gpus TEXT NOT NULL DEFAULT '[]';
ALTER TABLE container ADD COLUMN stop_by REAL;
ALTER TABLE deployment ADD COLUMN deleted_at REAL;
