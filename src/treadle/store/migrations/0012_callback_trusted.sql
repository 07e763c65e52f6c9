-- Whether a task's callback_url was chosen by its deployment's definition or by somebody who may deploy, and so may lead to
-- loopback. Who chose those of earlier tasks is not known.

ALTER TABLE task ADD COLUMN callback_trusted INTEGER NOT NULL DEFAULT 0;
