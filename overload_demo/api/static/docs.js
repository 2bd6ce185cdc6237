"use strict";

// After a 202, fill the id of the job into the operations that need it.
function fillIn(answer) {
  if (answer.status === 202 && answer.body) {
    for (const method of ["get", "delete"]) {
      ui.specActions.changeParam(["/jobs/{job_id}", method], "job_id", "path", answer.body.job_id);
    }
  }
  return answer;
}

const ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#docs",
  validatorUrl: null,
  responseInterceptor: fillIn,
});
